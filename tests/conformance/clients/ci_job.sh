#!/usr/bin/env bash
# A job as a CI runner does it: sources into a volume by a helper, services on a network, the build in
# a container that reads its script from standard input, artifacts out by cp, an image built, pushed
# and pulled, and everything found again by its labels. DOCKER_HOST names the engine, REGISTRY a
# registry that knows the user "user" with the password "secret", DOCKER the CLI.
set -euo pipefail
docker() { command "$DOCKER" "$@"; }
say() { echo "== $*"; }
label=(--label ci.job=7 --label ci.runner=r1)
cd "$(mktemp -d)"
trap 'rm -rf "$PWD"' EXIT

say sources
docker volume create "${label[@]}" ci-builds > volume
[ "$(cat volume)" = ci-builds ]
mkdir src
printf 'FROM busybox\nARG COMMIT=none\nLABEL commit=$COMMIT\nCOPY out /out\nCMD ["cat", "/out"]\n' > src/Dockerfile
printf '#!/bin/sh\nset -e\nwget -qO- http://db/answer > out\nid -u >> out\n' > src/build.sh
chmod 755 src/build.sh
tar c -C src . | docker run --rm -i "${label[@]}" -v ci-builds:/builds -w /builds busybox \
    sh -c 'mkdir project && tar x -C project && chown -R 1000:1000 project'
[ "$(docker run --rm -v ci-builds:/b:ro busybox sh -c 'cd /b/project; echo *; stat -c %u build.sh')" = "Dockerfile build.sh
1000" ]

say services
docker network create "${label[@]}" ci-net > /dev/null
docker run -d "${label[@]}" --name ci-db --network ci-net --network-alias db --health-interval 0.2s \
    --health-cmd 'wget -qO- http://127.0.0.1/answer' busybox \
    sh -c 'mkdir /w; echo 42 > /w/answer; exec httpd -f -p 80 -h /w' > /dev/null
for ((i = 0; i < 300; i++)); do
    [ "$(docker inspect -f '{{.State.Health.Status}}' ci-db)" = healthy ] && break
    sleep 0.1
done
[ "$(docker ps -q --filter health=healthy --filter label=ci.job=7 | wc -l)" = 1 ]

say build
id=$(docker create -i "${label[@]}" --name ci-build --network ci-net -v ci-builds:/builds \
    -v ci-cache:/cache -w /builds/project -u 1000 -e CI=true -e CI_JOB_ID=7 --memory 128m --cpus 1 \
    --entrypoint '' busybox sh)
docker start -a -i ci-build > log 2>&1 << 'SCRIPT'
set -e
echo "job $CI_JOB_ID"
./build.sh
cat out
SCRIPT
[ "$(cat log)" = "job 7
42
1000" ]
[ "$(docker wait ci-build)" = 0 ]
[ "$(docker inspect -f '{{.State.ExitCode}} {{.Id}}' ci-build)" = "0 $id" ]

say a failing step keeps its code
code=0
printf 'echo before\nexit 3\n' | docker run --rm -i "${label[@]}" busybox sh > log || code=$?
[ "$code $(cat log)" = "3 before" ]

say artifacts
docker cp ci-build:/builds/project/out src/out
docker cp ci-build:/builds/project - | tar t | sort > names
[ "$(tr '\n' ' ' < names)" = "project/ project/Dockerfile project/build.sh project/out " ]
[ "$(cat src/out)" = "42
1000" ]
tar c -C src out | docker cp - ci-build:/builds

say image
export DOCKER_BUILDKIT=0 DOCKER_CONFIG=$PWD/config
image=$REGISTRY/group/project
echo secret | docker login -u user --password-stdin "$REGISTRY" > /dev/null 2>&1
docker build -q "${label[@]}" --build-arg COMMIT=abc123 -t "$image:abc123" src > built 2> /dev/null
docker tag "$image:abc123" "$image:latest"
docker push -q "$image:abc123" > /dev/null
docker push -q -a "$image" > /dev/null
[ "$(docker images -q "$image" | sort -u | wc -l)" = 1 ]
docker rmi "$image:abc123" "$image:latest" > /dev/null
docker pull -q "$image:latest" > /dev/null
[ "$(docker run --rm "$image")" = "42
1000" ]
[ "$(docker image inspect -f '{{.Config.Labels.commit}} {{.Id}}' "$image")" = "abc123 $(cat built)" ]
docker build -q --cache-from "$image" --build-arg COMMIT=abc123 "${label[@]}" src 2> /dev/null | cmp - built
docker save "$image" | gzip > image.tar.gz
docker rmi "$image" > /dev/null
docker load -q -i image.tar.gz > loaded
grep -q "$image:latest" loaded
docker logout "$REGISTRY" > /dev/null
! docker push -q "$image" > /dev/null 2>&1

say cleanup
docker ps -aq --filter label=ci.job=7 --filter label=ci.runner=r1 | xargs "$DOCKER" rm -f -v > /dev/null
[ -z "$(docker ps -aq --filter label=ci.job=7)" ]
[ "$(docker volume ls -q --filter label=ci.job=7)" = ci-builds ]
docker volume prune -a -f --filter label=ci.job=7 > pruned
grep -q ci-builds pruned
docker network prune -f --filter label=ci.job=7 | grep -q ci-net
docker volume rm ci-cache > /dev/null
docker image prune -a -f --filter label=ci.job=7 > /dev/null
[ -z "$(docker images -q --filter label=ci.job=7)" ]
docker system prune -f --filter label=ci.job=7 > /dev/null
echo done
