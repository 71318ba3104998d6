# The archive code on its own: `make -f archive.mk test|asan|fuzz|tool`. The agent's Makefile builds
# it in.
BUILD ?= ../build
CC ?= gcc
CFLAGS ?= -O2
ARCHIVE_WARN := -std=c17 -D_GNU_SOURCE -Wall -Wextra -Werror -Wconversion -Wshadow
ARCHIVE_SOURCES := $(wildcard archive_*.c)
ARCHIVE_HEADERS := $(wildcard archive*.h) sys.h
ARCHIVE_SANITIZE := -O1 -g -fsanitize=address,undefined -fno-sanitize-recover=all
FUZZ_RUNS ?= 200000

archive-all: $(BUILD)/archive_tool $(BUILD)/archive_test

$(BUILD)/archive_%: tests/archive_%.c $(ARCHIVE_SOURCES) $(ARCHIVE_HEADERS)
	@mkdir -p $(BUILD)
	$(CC) $(ARCHIVE_WARN) $(CFLAGS) -I. -o $@ $< $(ARCHIVE_SOURCES)

$(BUILD)/archive_%-asan: tests/archive_%.c $(ARCHIVE_SOURCES) $(ARCHIVE_HEADERS)
	@mkdir -p $(BUILD)
	$(CC) $(ARCHIVE_WARN) $(ARCHIVE_SANITIZE) -I. -o $@ $< $(ARCHIVE_SOURCES)

$(BUILD)/archive_libfuzzer: tests/archive_fuzz.c $(ARCHIVE_SOURCES) $(ARCHIVE_HEADERS)
	@mkdir -p $(BUILD)
	clang $(ARCHIVE_WARN) -g -O1 -fsanitize=fuzzer,address,undefined -DLIBFUZZER -I. -o $@ $< \
		$(ARCHIVE_SOURCES)

tool: $(BUILD)/archive_tool

test: $(BUILD)/archive_test
	$(BUILD)/archive_test

asan: $(BUILD)/archive_test-asan $(BUILD)/archive_tool-asan
	$(BUILD)/archive_test-asan

# Mutates small good archives; with clang, libFuzzer does it better.
fuzz: $(BUILD)/archive_fuzz-asan
	@if command -v clang >/dev/null; then \
		$(MAKE) --no-print-directory -f archive.mk $(BUILD)/archive_libfuzzer && \
		$(BUILD)/archive_libfuzzer -runs=$(FUZZ_RUNS) -max_len=16384; \
	else $(BUILD)/archive_fuzz-asan $(FUZZ_RUNS); fi

.PHONY: archive-all tool test asan fuzz
