# What of the container side needs no guest: `make -f container.mk test`, under ASan and UBSan. All the
# rest is tested in real guests, by tests/integration/agent.
BUILD ?= ../build
CC ?= gcc
WARN := -std=c17 -D_GNU_SOURCE -Wall -Wextra -Werror -Wconversion -Wshadow
SANITIZE := -O1 -g -fsanitize=address,undefined -fno-sanitize-recover=all
PARTS := arena.c codec.c fail.c fileio.c report.c spec.c spec_parts.c users.c
SECONDS ?= 5

test: $(BUILD)/container_test
	$(BUILD)/container_test $(SECONDS)

$(BUILD)/container_test: tests/container_test.c $(PARTS) $(wildcard *.h)
	@mkdir -p $(BUILD)
	$(CC) $(WARN) $(SANITIZE) -I. -o $@ tests/container_test.c $(PARTS)

.PHONY: test
