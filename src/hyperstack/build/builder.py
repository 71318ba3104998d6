"""One build, step by step: the classic builder's order of things, words and ids.

Follows moby's ``builder/dockerfile``: each instruction makes an image whose parent is the one
before; the cache is asked first. A step that only sets something has a container too, as with
Docker, which is never started: the image keeps its id.
"""

from __future__ import annotations

import contextlib
import logging
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import IO

from msgspec.structs import replace

from hyperstack.build import copying, fetch, files, metadata, shell, sources
from hyperstack.build.args import BuildArgs
from hyperstack.build.bench import Bench, Closing
from hyperstack.build.cache import Cache
from hyperstack.build.instructions import (
    NEEDS_BUILDKIT,
    Dockerfile,
    Instruction,
    Stage,
    parse_trigger,
)
from hyperstack.build.options import BuildOptions, Output, StepFailed
from hyperstack.build.pulling import base_image, check_platform
from hyperstack.build.roots import Roots
from hyperstack.build.sources import Digests
from hyperstack.build.state import NOP, Stages, State
from hyperstack.build.tree import Tree
from hyperstack.errors import HyperError, InvalidParameter, NotFound
from hyperstack.ids import new_id, short
from hyperstack.image.content import mapped
from hyperstack.image.service import Image, ImageService
from hyperstack.model import ContainerConfig, Healthcheck, StreamKind

log = logging.getLogger(__name__)

LAYERS = "layer-"
"""In front of the names of files that layers are written to."""
Say = Callable[[Output], Awaitable[None]]


class Builder:
    """Carries out one Dockerfile. ``run`` once."""

    def __init__(
        self,
        *,
        options: BuildOptions,
        images: ImageService,
        bench: Bench,
        folder: Path,
        digests: Digests,
        tree: Tree | None,
        say: Say,
    ) -> None:
        self._options = options
        self._images = images
        self._bench = bench
        self._folder = folder
        self._digests = digests
        self._tree = tree
        self._say = say
        self._roots = Roots(bench)
        self._stages = Stages()
        self._escape = "\\"
        self._containers: dict[str, bool] = {}
        """Of the present step, by id, and whether they really exist."""
        self._cache = Cache(images, off=options.no_cache, sources=options.cache_from)

    async def run(self, file: Dockerfile) -> str:
        """Build and return the id of the last stage's image. Raises HyperError."""
        try:
            return await self._run_all(file)
        finally:
            await self._roots.close()

    async def _run_all(self, file: Dockerfile) -> str:
        self._escape = file.escape
        args = BuildArgs(self._options.build_args)
        total = len(file.meta) + sum(1 + len(stage.steps) for stage in file.stages)
        numbers = iter(range(1, total + 1))
        for step in file.meta:
            await self._announce(next(numbers), total, step.code)
            for name, value in step.pairs:
                variables = args.in_scope()
                default = None if value is None else shell.expand(value, variables, self._escape)
                args.add_meta(shell.expand(name, variables, self._escape), default)
        state = State(name="", args=args.stage())
        for stage in file.stages:
            self._stages.check_name(stage.name)
            state = State(name=stage.name, args=args.stage())
            await self._announce(next(numbers), total, stage.code)
            await self._begin(state, stage)
            await self._text(f" ---> {short(state.image)}\n")
            for step in stage.steps:
                await self._announce(next(numbers), total, step.code)
                await self._step(state, step)
                await self._text(f" ---> {short(state.image)}\n")
            if state.image:
                await self._say(Output(image=state.image))
            self._stages.add(stage.name, state.image)
        await self._warn_unused(args)
        if not state.image:
            raise InvalidParameter("No image was generated. Is your Dockerfile empty?")
        return state.image

    async def _text(self, text: str) -> None:
        await self._say(Output(text=text))

    async def _announce(self, number: int, total: int, code: str) -> None:
        await self._text(f"Step {number}/{total} : {code}")
        await self._text("\n")

    async def _warn_unused(self, args: BuildArgs) -> None:
        if unused := args.unused():
            names = " ".join(unused)
            await self._text(f"[Warning] One or more build-args [{names}] were not consumed\n")

    # --- FROM

    async def _begin(self, state: State, stage: Stage) -> None:
        self._cache.reset()
        variables = state.args.for_from()
        platform = shell.expand(stage.platform, variables, self._escape)
        name = shell.expand(stage.base, variables, self._escape)
        if not name:
            raise InvalidParameter(f"base name ({stage.base}) should not be blank")
        if stage.platform:
            try:
                check_platform(platform)
            except InvalidParameter as error:
                words = f"failed to parse platform {platform}: {error.message}"
                raise InvalidParameter(words) from error
        state.begin(await self._base(name, platform or self._options.platform))
        triggers = state.config.on_build or ()
        if not triggers:
            return
        state.set(on_build=None)
        plural = "s" if len(triggers) > 1 else ""
        await self._text(f"# Executing {len(triggers)} build trigger{plural}")
        await self._text("\n")
        for trigger in triggers:
            await self._step(state, parse_trigger(trigger, "\\"))

    async def _base(self, name: str, platform: str) -> Image | None:
        """Return what FROM or --from means: a stage's image, or one that is pulled if need be."""
        if (staged := self._stages.named(name)) is not None:
            return self._images.get(staged) if staged else None
        if name == "scratch":
            return None
        return await base_image(self._images, name, platform, self._options, self._say)

    # --- steps

    async def _step(self, state: State, step: Instruction) -> None:
        """Carry one out; its containers go as ``rm`` and ``forcerm`` say.

        Those of a command that failed stay for whoever looks into it; nobody does when the client
        is gone.
        """
        failed = False
        try:
            step = metadata.expanded(state, step, self._escape)
            await self._dispatch(state, step)
        except Exception:
            failed = True
            raise
        finally:
            if self._options.force_remove or (self._options.remove and not failed):
                await self._remove_containers()
            self._containers.clear()

    async def _dispatch(self, state: State, step: Instruction) -> None:
        if metadata.handles(step.keyword):
            await self._metadata(state, step)
        elif step.keyword == "run":
            await self._run(state, step)
        elif step.keyword == "workdir":
            await self._workdir(state, step)
        else:
            await self._copy(state, step)

    async def _remove_containers(self) -> None:
        for container, real in self._containers.items():
            try:
                if real:
                    await self._bench.remove(container)
            except NotFound:
                continue
            except HyperError as error:
                log.warning("container %s of a build: %s", short(container), error)
                continue
            await self._text(f" ---> Removed intermediate container {short(container)}\n")

    async def _cached(self, state: State, command: tuple[str, ...]) -> bool:
        found = await self._cache.probe(state.image, state.config, " ".join(command))
        if found:
            await self._text(" ---> Using cache\n")
            state.image = found
        return bool(found)

    async def _commit(
        self,
        state: State,
        command: tuple[str, ...],
        *,
        layer: Path | None,
        container: str = "",
        ran: bool = False,
        announced: bool = True,
    ) -> None:
        """Make the step's image. *command* is what its container had, or would have had; *ran*:
        it has run, else what is kept of the parent's root is the image's root too; *announced*:
        there is an event, which dockerd has for all but COPY and ADD."""
        parent = state.image
        made_of = replace(
            state.config,
            hostname="" if ran else short(container),
            cmd=command,
            image=parent,
            entrypoint=None if ran else state.config.entrypoint,
        )
        state.image = await self._images.commit(
            parent=parent,
            layer=layer,
            config=state.config,
            container=container,
            created_by=" ".join(command),
            author=state.author,
            made_of=made_of,
            announced=announced,
        )
        if not ran:
            self._roots.moved(parent, state.image)

    async def _metadata(self, state: State, step: Instruction) -> None:
        old = state.config.healthcheck
        if step.keyword == "healthcheck" and old and old.test and old.test[0] != "NONE":
            words = " ".join(old.test)
            await self._text(f"Note: overriding previous HEALTHCHECK: [{words}]\n")
        text = metadata.apply(state, step, self._escape)
        command = state.comment(text)
        if not await self._cached(state, command):
            container = await self._placeholder(state, command)
            await self._commit(state, command, layer=None, container=container)

    async def _placeholder(self, state: State, command: tuple[str, ...]) -> str:
        """Make the container of a step that runs nothing: nobody starts it, but it has an id."""
        if not state.image:
            container = new_id()  # of nothing there is no container
            self._containers[container] = False
        else:
            container, _ = await self._bench.create(
                state.image,
                replace(state.config, cmd=command, entrypoint=None),
                self._options.host,
                passing=self._options.remove or self._options.force_remove,
            )
            self._containers[container] = True
        await self._text(f" ---> Running in {short(container)}\n")
        return container

    async def _workdir(self, state: State, step: Instruction) -> None:
        path = metadata.working_dir(state, step.args[0])
        state.set(working_dir=path)
        command = state.comment_of_files(f"{NOP}WORKDIR {path}")
        if await self._cached(state, command):
            return
        root = await self._roots.target(state.image)
        made = await files.make_folder(root, path)
        container = await self._placeholder(state, command)
        if not made:
            await self._commit(state, command, layer=None, container=container)
            return
        async with self._spooled(await root.diff()) as layer:
            await self._commit(state, command, layer=layer, container=container)

    async def _run(self, state: State, step: Instruction) -> None:
        for flag in step.flags:
            raise InvalidParameter(NEEDS_BUILDKIT.format(flag))
        command = state.command(step.args, listed=step.json)
        args = state.args.environment(state.config.env)
        counted = sorted(f"{k}={v}" for k, v in args.items() if state.args.counts(k))
        recorded = (f"|{len(counted)}", *counted, *command) if args else command
        if await self._cached(state, recorded):
            return
        config = replace(
            state.config,
            cmd=command or state.config.cmd,
            entrypoint=("",),
            env=(*state.config.env, *(f"{k}={v}" for k, v in args.items())),
            healthcheck=Healthcheck(test=("NONE",)),
            on_build=None,
        )
        with self._layer_file() as file:
            layer = Path(file.name)
            container = await self._run_container(state, config, layer)
            await self._commit(state, recorded, layer=layer, container=container, ran=True)

    async def _run_container(self, state: State, config: ContainerConfig, layer: Path) -> str:
        assert config.cmd is not None
        if not state.image:
            await self._text(f" ---> Running in {short(new_id())}\n")  # as if there were one
            raise InvalidParameter(
                "failed to create task for container: failed to create shim task: OCI runtime "
                "create failed: runc create failed: unable to start container process: exec: "
                f"{shell.go_quote(config.cmd[0])}: stat {config.cmd[0]}: no such file or directory"
            )
        await self._roots.close()  # nothing of them is wanted after this step
        container, warnings = await self._bench.create(state.image, config, self._options.host)
        self._containers[container] = True
        for warning in warnings:
            await self._text(f" ---> [Warning] {warning}\n")
        await self._text(f" ---> Running in {short(container)}\n")
        ended = await self._bench.run(container, self._output, layer)
        if ended.exit_code:
            words = " ".join(config.cmd)
            message = f"The command '{words}' returned a non-zero code: {ended.exit_code}"
            if ended.error:
                message += f": {ended.error}"
            raise StepFailed(message, ended.exit_code)
        return container

    async def _output(self, kind: StreamKind, data: bytes) -> None:
        text = data.decode("utf-8", "replace")
        await self._say(Output(text=text, stderr=kind == StreamKind.STDERR))

    # --- COPY and ADD

    async def _copy(self, state: State, step: Instruction) -> None:
        command = step.keyword.upper()
        if step.flags.get("chmod"):
            raise InvalidParameter(NEEDS_BUILDKIT.format("chmod"))
        *names, asked = step.args
        if command == "COPY" and any(map(fetch.is_url, names)):
            raise InvalidParameter("COPY failed: source can't be a URL for COPY")
        image = await self._from(step.flags["from"]) if step.flags.get("from") else None
        async with contextlib.AsyncExitStack() as stack:
            picked: list[copying.Picked] = []
            digest = self._digests.find(image, names) if image is not None else ""
            if not digest:
                picked = await self._pick(image, names, command, stack)
                _check_names(picked, asked, command)
                digest = copying.digest(picked)
            chown = step.flags.get("chown", "")
            owner = f"--chown={chown} " if chown else ""
            words = state.comment_of_files(f"{NOP}{command} {owner}{digest} in {asked} ")
            if await self._cached(state, words):
                return
            picked = picked or await self._pick(image, names, command, stack)
            await self._copy_files(state, step, picked, words)

    async def _pick(
        self, image: str | None, names: list[str], command: str, stack: contextlib.AsyncExitStack
    ) -> list[copying.Picked]:
        if image is None:
            picked = []
            for name in names:
                if fetch.is_url(name):
                    picked.append(await fetch.pick(name, self._folder, self._say, stack))
                    continue
                if self._tree is None:
                    raise InvalidParameter(f"{command} failed: missing build context")
                picked += copying.pick(self._tree, name, command, image=False)
            if not picked:
                raise InvalidParameter(f"{command} failed: no source files were specified")
        else:
            source = sources.ImageSource(await self._roots.source(image), self._folder, stack)
            picked = await source.pick(names, command)
            self._digests.keep(image, picked)
        return picked

    async def _from(self, name: str) -> str:
        """Return the image of ``--from``: a stage by name or number, or any image."""
        try:
            found = self._stages.find(name)
            if found is None:
                base = await self._base(name, self._options.platform)
                found = base.id if base else ""
        except HyperError as error:
            message = f"invalid from flag value {name}: {error.message}"
            raise InvalidParameter(message) from error
        return found

    async def _copy_files(
        self,
        state: State,
        step: Instruction,
        picked: list[copying.Picked],
        words: tuple[str, ...],
    ) -> None:
        command, asked = step.keyword.upper(), step.args[-1]
        place = copying.destination(state.config.working_dir, asked)
        root = await self._roots.target(state.image)
        await files.copy(
            root,
            picked,
            place,
            chown=step.flags.get("chown", ""),
            keep=bool(step.flags.get("from")),
            unpack=command == "ADD",
        )
        async with self._spooled(await root.diff()) as layer:
            await self._commit(state, words, layer=layer, announced=False)

    @contextlib.asynccontextmanager
    async def _spooled(self, tar: Closing) -> AsyncIterator[Path]:
        """Write a layer to a file and give its path while the block runs."""
        async with contextlib.aclosing(tar):
            with self._layer_file() as file:
                with mapped("write a layer"):
                    async for data in tar:
                        file.write(data)
                    file.flush()
                yield Path(file.name)

    @contextlib.contextmanager
    def _layer_file(self) -> Iterator[IO[bytes]]:
        with mapped("write a layer"):
            self._folder.mkdir(parents=True, exist_ok=True)
            file = tempfile.NamedTemporaryFile(dir=self._folder, prefix=LAYERS)  # noqa: SIM115
        with file:
            yield file


def _check_names(picked: list[copying.Picked], asked: str, command: str) -> None:
    """Raise InvalidParameter if the sources and the destination don't go together."""
    if len(picked) > 1 and not asked.endswith("/"):
        raise InvalidParameter(
            f"When using {command} with more than one source file, the destination must be a "
            "directory and end with a /"
        )
    for one in picked:
        if not one.named and asked.endswith("/"):
            words = f"cannot determine filename for source {one.url}"
            raise InvalidParameter(f"{command} failed: {words}")
