"""The same commands here and at a real dockerd: exit codes, output and files are the same.

Sentences of errors are compared in other tests: they are those of a newer dockerd than may be
installed. Ids, times, addresses and names that engines choose are masked.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.framework.host import DOCKER, Host
from tests.framework.images import busybox_tar
from tests.framework.reference import Reference, running_reference

pytestmark = pytest.mark.xdist_group("side by side")


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reference]:
    with running_reference(tmp_path_factory.mktemp("dockerd")) as running:
        running.docker(
            "import", "--change", 'CMD ["sh"]', "-", "busybox:latest", stdin=busybox_tar()
        )
        yield running


_MASKS = (
    # What older dockerds add to their runtime's words.
    (r"(OCI runtime exec failed: .*): unknown(?=\r|$)", r"\1"),
    (r"\b[0-9a-f]{64}\b", "ID"),
    (r"\b[0-9a-f]{12}\b", "ID"),
    (r"\d{4}-\d\d-\d\dT[\d:.]+Z", "TIME"),
    (r"\b\d+\.\d+\.\d+\.\d+\b", "ADDRESS"),
    (r"\b(?:[0-9a-f]{2}:){5}[0-9a-f]{2}\b", "MAC"),
)


def _masked(text: str) -> str:
    for pattern, word in _MASKS:
        text = re.sub(pattern, word, text, flags=re.MULTILINE)
    return text


def _run(script: str, url: str, folder: Path) -> str:
    """Run a script in an empty folder, ``d`` being the CLI; return what it wrote, masked.

    What an engine says of an error is left out; that there was one is not.
    """
    folder.mkdir()
    head = (
        f'd() {{ timeout 60 {DOCKER} -H {url} "$@" 2> err; local code=$?; '
        'if [ $code != 0 ]; then echo "exit $code"; fi; return $code; }\n'
        'q() { d "$@" > /dev/null; }\n'
    )
    done = subprocess.run(
        ["bash", "-c", head + script],
        cwd=folder,
        capture_output=True,
        stdin=subprocess.DEVNULL,
        timeout=180,
        env={"PATH": os.environ["PATH"], "HOME": str(folder), "LANG": "C.UTF-8"},
    )
    return _masked(done.stdout.decode(errors="replace"))


SCRIPTS = {
    "exit codes": """
        for c in true false 'exit 42' 'kill -9 $$' 'kill -TERM $$'; do
            for o in "" "--init" "-t" "-t --init"; do d run --rm $o busybox sh -c "$c"; done
        done
        for c in nosuch /no/such /etc/passwd; do d run --rm busybox $c; done
        for o in "-u nobody2" "-w rel" "--cap-add FOO" "--network nosuch" "--volumes-from nosuch" \
            "--tmpfs rel" "--mount type=foo,target=/x" "--log-driver foo" "--memory 1m" \
            "--restart foo" "-v /a:/x -v /b:/x" "--health-interval 1us --health-cmd x" \
            "--ip 1.2.3.4" "--security-opt foo" "--stop-signal FOO" "--sysctl foo=bar"; do
            d run --rm $o busybox true
        done
        d run --rm --platform linux/s390x --pull never busybox true
        """,
    "a container's surroundings": """
        d run --rm -h box --domainname dom -u user:users --group-add 9 -w /new/dir -e A=1 -e B \
            busybox sh -c 'env | sort; pwd; id; umask; hostname; cat /etc/hostname
            ls -ld . | cut -c1-10
            grep -E "Cap|NoNew|Seccomp:" /proc/self/status; cat /proc/self/oom_score_adj
            date +%Z; tail -1 /etc/hosts | wc -w; ls /dev | grep -v core | sort'
        d run --rm -h 'odd_name/x' busybox hostname
        d run --rm --read-only --tmpfs /t busybox sh -c \
            'for f in /x /etc/hosts /etc/resolv.conf /t/x; do touch $f 2> err; echo $f $?; done'
        d run --rm -t busybox sh -c 'tty; ls -l /dev/console | cut -c1-10'
        d run --rm --ulimit nofile=100:200 --ulimit core=0 --shm-size 1m --pids-limit 20 \
            --sysctl net.core.somaxconn=77 busybox sh -c 'ulimit -n; ulimit -Hn; ulimit -c
            df -k /dev/shm | tail -1 | tr -s " " | cut -d " " -f 2
            cat /proc/sys/net/core/somaxconn'
        """,
    "life": """
        d create --name one -l k=v busybox sh -c 'echo out; exit 3' | wc -w
        d inspect -f '{{json .State}}' one
        d start -a one; d wait one; d inspect -f '{{json .State}}' one; d logs one
        d inspect -f '{{json .NetworkSettings.Networks.bridge.IPAddress}}' one
        d run -d --name two busybox sleep 100 | wc -w
        d pause two; d pause two; d exec two true; d kill -s TERM two; d unpause two
        d rm two; d rename two x; d rename two one; d rename two three; d kill three; d wait three
        d kill three; d stop three; d rm three one; d rm three; d ps -aq
        d run -d --name four --stop-signal USR1 busybox \
            sh -c 'trap "echo usr; exit 6" USR1; while :; do sleep 0.1; done' | wc -w
        sleep 1; d stop four; d wait four; d logs four; q rm four
        """,
    "exec": """
        q run -d --name ex -e A=1 -u user -w /var busybox sleep 100
        d exec ex sh -c 'id; pwd; env | sort'; d exec -u root -w /tmp -e A=2 ex sh -c 'id; pwd
        echo $A'
        d exec ex sh -c 'exit 7'; d exec ex sh -c 'kill -9 $$'; d exec ex /etc/passwd
        d exec nosuch true
        d exec -t ex tty; echo hi | d exec -i ex cat; d exec ex grep Cap /proc/self/status
        d exec -d ex true; d exec ex
        """,
    "cp with volumes of a stopped container": """
        echo here > file; mkdir dir; echo in > dir/in
        q create --name cc -v vol:/vol -v $PWD/dir:/bind -v $PWD/file:/file:ro busybox \
            cat /vol/file /bind/file
        d cp file cc:/vol; d cp file cc:/bind/; ls dir; d cp cc:/vol - | tar t; d cp cc:/file copy
        cat copy
        d cp file cc:/file; d cp file cc:/nope/; d cp cc:/nope .
        d export cc | tar t | grep -E '^(vol|bind)'
        d start -a cc; d cp cc:/vol/file after; cat after; d cp cc:/bind there; ls there
        """,
    "cp": """
        q run -d --name cc busybox sh -c \
            'mkdir -p /d/e /x; echo f > /d/f; ln -s /d/f /l; ln -s nope /dang; ln -s /d /ld
            sleep 100'
        sleep 0.5; echo hf > hf; mkdir -p hd/s; echo s > hd/s/s; ln -s hf hl
        for a in "cc:/d/f ." "cc:/d/f new" "cc:/d/f hd" "cc:/d/f nope/" "cc:/d ." "cc:/d/. new2" \
            "cc:/d/. hd" "cc:/d hf" "cc:/d/f/ ." "cc:/l lcopy" "cc:/dang ." "cc:/ld ldc" \
            "cc:/ld/. ldc3" "-L cc:/l LL" "-a cc:/d/f af" "hf cc:/" "hf cc:/d/new" \
            "hf cc:/nope/" "hd cc:/d" \
            "hd/. cc:/d" "hd cc:/d/f" "hf cc:/l" "hf cc:/dang" "hf cc:/ld" "hl cc:/x" \
            "-L hl cc:/x/hl3" \
            "nope cc:/x"; do
            echo "== $a"; d cp $a; done
        find . | grep -v '^./err' | sort
        d exec cc sh -c \
            'find / -xdev -newer /d/f -type f -o -type l | grep -v -e ^/bin -e ^/etc | sort'
        """,
    "volumes": """
        q run --name base busybox sh -c \
            'mkdir -p /data/sub; echo d > /data/f; ln -s f /data/l; chown -R 1000:100 /data
            chmod 750 /data'
        q commit -c 'VOLUME /data' base volimg
        L='ls -ln /data | sed 1d | tr -s " " | cut -d " " -f 1,3,4'
        d run --rm volimg sh -c "$L; stat -c '%a %u %g' /data"
        d run --rm -v nv:/data volimg sh -c "$L"
        d run --rm -v nv:/other busybox ls /other; d run --rm -v nc:/data:nocopy volimg ls -A /data
        q run -d --name vf volimg sleep 100
        d run --rm --volumes-from vf:ro busybox sh -c 'ls /data; touch /data/x 2> /dev/null
        echo $?'
        d inspect -f '{{range .Mounts}}{{.Type}} {{.Destination}} {{.Driver}} {{.RW}}{{end}}' vf
        d volume ls -q | sort; q rm -f -v base vf; d volume ls -q | sort; q rmi volimg
        for n in x 'b!d' v1 v1; do d volume create $n; done; d volume rm nosuch; d volume rm v1
        """,
    "update": """
        q run -d --name uu -m 32m --cpus 0.5 busybox sleep 100
        d update -m 48m uu; d update -m 48m --memory-swap 96m uu; d update --cpu-quota 50000 uu
        d update --cpus 99 uu; d update --cpus 0.3 uu; d update --memory 1m uu
        d update --restart foo uu
        d update --restart always uu; d update --pids-limit 10 uu
        d inspect -f '{{with .HostConfig}}{{json .RestartPolicy}} {{.Memory}}{{end}}' uu
        """,
    "filters of ps": """
        q run -d --name run1 -l n=1 busybox sleep 100
        q run --name done2 --expose 99 busybox sh -c 'exit 3'
        q create --name cre -v vol:/v -p 8081:80/udp busybox
        q run -d --name pub -p 18080:80 -p 19000:9000/udp --expose 1234 busybox sleep 100
        for f in status=running status=exited status=foo name=^/run1 name=^run1$ label=n label=n=2 \
            exited=3 exited=x before=cre since=cre since=nosuch volume=vol volume=/v \
            network=bridge \
            publish=18080 publish=80 publish=19000/udp expose=99 expose=80 expose=1234 \
            publish=x health=none \
            is-task=false is-task=true is-task=x ancestor=busybox foo=bar; do
            echo "== $f"; d ps -a --filter $f --format '{{.Names}}'; done
        d ps -n 2 --format '{{.Names}} {{.Command}} {{.State}}'; d port pub; d port pub 80
        d port pub 77
        """,
}


@pytest.mark.parametrize("name", list(SCRIPTS))
def test_commands_have_the_same_effect_here_and_at_dockerd(
    host: Host, reference: Reference, tmp_path: Path, name: str
) -> None:
    try:
        theirs = _run(SCRIPTS[name], reference.url, tmp_path / "docker")
        ours = _run(SCRIPTS[name], host.url, tmp_path / "hyper")
    finally:
        reference.remove_everything()
        host.remove_everything()
        if names := host.docker("volume", "ls", "-q").out.split():
            host.docker("volume", "rm", *names)
    assert ours.splitlines() == theirs.splitlines()
