"""Builds as one service: takes a context and options, yields what the builder says."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path

from hyperstack.build import context, fetch, git, instructions, shell, spools
from hyperstack.build.bench import Bench
from hyperstack.build.builder import LAYERS, Builder, Say
from hyperstack.build.gitjail import GitJails
from hyperstack.build.options import BuildOptions, Output
from hyperstack.build.pulling import check_platform
from hyperstack.build.sources import Digests
from hyperstack.build.tree import Tree
from hyperstack.errors import HyperError, InternalError, InvalidParameter
from hyperstack.ids import short
from hyperstack.image.reference import Reference
from hyperstack.image.service import ImageService

MOST_BUILDS = 8
"""Builds at once; further ones wait before they read their context."""
WAITING = 64
"""Pieces of output that wait for a slow client."""


class BuildService:
    """The classic builder. One per daemon."""

    def __init__(self, folder: Path, images: ImageService, bench: Bench, gits: GitJails) -> None:
        self._folder = folder
        self._images = images
        self._bench = bench
        self._gits = gits
        self._digests = Digests()
        self._places = asyncio.Semaphore(MOST_BUILDS)
        self._clear()

    def _clear(self) -> None:
        """Remove what builds of an earlier daemon left."""
        for pattern in (f"{spools.PREFIX}*", f"{LAYERS}*"):
            for path in self._folder.glob(pattern):
                path.unlink(missing_ok=True)

    async def build(
        self, options: BuildOptions, body: AsyncIterator[bytes]
    ) -> AsyncGenerator[Output, None]:
        """Build and tag an image; close the generator to stop it and end what it runs.

        *body* is the context, a tar. The last piece of output but the tags' is the whole id. Raises
        InvalidParameter for a bad Dockerfile, StepFailed for a command that failed, and what its
        parts raise.
        """
        if options.platform:
            check_platform(options.platform)
        queue: asyncio.Queue[Output | None] = asyncio.Queue(WAITING)
        names = _names(options.tags)

        async def work() -> None:
            try:
                async with self._places:
                    await self._work(options, names, body, queue.put)
            finally:
                with contextlib.suppress(asyncio.CancelledError):
                    await queue.put(None)

        task = asyncio.create_task(work(), name="build")
        try:
            while (piece := await queue.get()) is not None:
                yield piece
            await task
        finally:
            if not task.done():
                task.cancel()
                while not task.done():  # its clean-up may still have something to say
                    with contextlib.suppress(asyncio.QueueEmpty):
                        queue.get_nowait()
                    await asyncio.wait({task}, timeout=0.05)
            await asyncio.gather(task, return_exceptions=True)

    async def _work(
        self,
        options: BuildOptions,
        names: list[Reference],
        body: AsyncIterator[bytes],
        say: Say,
    ) -> None:
        async with contextlib.AsyncExitStack() as stack:
            tree, text = await self._context(options, body, say, stack)
            file = _read(text, options)
            if file.warnings:
                for warning in file.warnings:
                    await say(Output(text=f"{warning}\n", stderr=True))
            with self._images.hold():
                builder = Builder(
                    options=options,
                    images=self._images,
                    bench=self._bench,
                    folder=self._folder,
                    digests=self._digests,
                    tree=tree,
                    say=say,
                )
                image = await builder.run(file)
                await say(Output(text=f"Successfully built {short(image)}\n", built=image))
                for name in names:
                    await self._images.tag(image, name.familiar_name, name.tag)
                    await say(Output(text=f"Successfully tagged {name.familiar()}\n"))

    async def _context(
        self,
        options: BuildOptions,
        body: AsyncIterator[bytes],
        say: Say,
        stack: contextlib.AsyncExitStack,
    ) -> tuple[Tree | None, str]:
        """Return the context, None if there is none, and the Dockerfile's text.

        Raises InternalError for a context that can't be read, as Docker does.
        """
        address = options.remote
        if address:
            async for _ in body:
                pass  # a context that nobody wants; its end says that the client waits
        if address and fetch.is_git(address):
            async with git.fetched(address, self._gits) as tar:
                tree = await self._tree(tar, stack)
        elif address:
            found = await self._download(address, say, stack)
            if await asyncio.to_thread(fetch.is_dockerfile, found, address):
                return None, context.text_of(found.path, found.size)
            tree = await self._tree(fetch.content(found), stack)
        else:
            tree = await self._tree(body, stack)
        return tree, context.take_dockerfile(tree, options.dockerfile)

    async def _tree(self, body: AsyncIterator[bytes], stack: contextlib.AsyncExitStack) -> Tree:
        """Spool a tar, which stays while *stack* does, and read it. Raises InternalError."""
        try:
            spool = await stack.enter_async_context(context.spooled(body, self._folder))
            return await context.load(spool)
        except InvalidParameter as error:
            raise InternalError(error.message) from error

    async def _download(
        self, address: str, say: Say, stack: contextlib.AsyncExitStack
    ) -> fetch.Fetched:
        """Fetch a context or Dockerfile, which stays while *stack* does. Raises HyperError."""
        if not fetch.is_url(address):
            raise InternalError(f"remoteURL ({address}) could not be recognized as URL")
        download = fetch.fetched(address, self._folder, say, status=address, context=True)
        try:
            return await stack.enter_async_context(download)
        except HyperError as error:
            if error.message.startswith("error detecting"):
                raise
            words = f"error downloading remote context {address}: {error.message}"
            raise type(error)(words) from error


def _names(tags: tuple[str, ...]) -> list[Reference]:
    """Read the names that the image is to get, each once. Raises InternalError, as Docker does."""
    found: dict[str, Reference] = {}
    for tag in tags:
        if not tag:
            continue
        try:
            reference = Reference.parse(tag)
        except InvalidParameter as error:
            raise InternalError(error.message) from error
        if reference.digest is not None:
            raise InternalError("build tag cannot contain a digest")
        tagged = reference.tagged()
        found.setdefault(tagged.familiar(), tagged)
    return list(found.values())


def _read(text: str, options: BuildOptions) -> instructions.Dockerfile:
    """Read the Dockerfile, up to the target stage. Raises InvalidParameter."""
    name = options.dockerfile or context.DEFAULT
    file = instructions.parse(text, name)
    stages = file.stages
    if not stages:
        raise InvalidParameter("no build stage in current context")
    if options.target:
        wanted = options.target.lower()
        at = next((n for n, stage in enumerate(stages) if stage.name == wanted), None)
        if at is None:
            name = shell.go_quote(options.target)
            raise InvalidParameter(f"target stage {name} could not be found")
        stages = stages[: at + 1]
    instructions.labelled(stages, options.labels)
    return instructions.with_stages(file, stages)
