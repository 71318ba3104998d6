// dockerode, as its users use it: promises, hijacked streams, progress of builds. DOCKER_HOST names
// the engine, NODE_PATH the folder with the package.
"use strict";
const assert = require("node:assert/strict");
const { PassThrough } = require("node:stream");
const { text, buffer } = require("node:stream/consumers");
const { once } = require("node:events");
const Docker = require("dockerode");
const tar = require("tar-stream");

const docker = new Docker({ socketPath: process.env.DOCKER_HOST.replace("unix://", "") });
const SLEEP = ["sleep", "60"];

function archive(files) {
    const pack = tar.pack();
    for (const [name, data] of Object.entries(files)) pack.entry({ name }, data);
    pack.finalize();
    return pack;
}

function split(stream) {
    const out = new PassThrough(), err = new PassThrough();
    docker.modem.demuxStream(stream, out, err);
    stream.on("end", () => { out.end(); err.end(); });
    return [text(out), text(err)];
}

const followed = (stream) => new Promise((resolve, reject) =>
    docker.modem.followProgress(stream, (error, lines) => error ? reject(error) : resolve(lines)));

async function system() {
    assert.equal((await docker.ping()).toString(), "OK");
    assert.equal((await docker.version()).Os, "linux");
    assert.equal((await docker.info()).OSType, "linux");
    assert.ok(Array.isArray((await docker.df()).Containers));
    await assert.rejects(docker.listServices(), { statusCode: 503 });
    await assert.rejects(docker.getContainer("nope").inspect(),
        { statusCode: 404, json: { message: "No such container: nope" } });
}

async function run() {
    const out = new PassThrough(), err = new PassThrough();
    const texts = [text(out), text(err)];
    const [result, container] = await docker.run("busybox",
        ["sh", "-c", "echo out; echo err >&2; exit 3"], [out, err], { Tty: false });
    out.end(); err.end();
    assert.equal(result.StatusCode, 3);
    assert.deepEqual(await Promise.all(texts), ["out\n", "err\n"]);
    await container.remove();
}

async function life() {
    const container = await docker.createContainer({
        Image: "busybox", Cmd: SLEEP, name: "node-life", Labels: { by: "dockerode" },
        StopSignal: "SIGKILL", ExposedPorts: { "80/tcp": {} },
        HostConfig: { PortBindings: { "80/tcp": [{ HostPort: "" }] }, Memory: 64 << 20 },
    });
    await container.start();
    await assert.rejects(container.start(), { statusCode: 304 });
    const shown = await container.inspect();
    assert.ok(shown.State.Running);
    assert.ok(Number(shown.NetworkSettings.Ports["80/tcp"][0].HostPort) > 0);
    await container.pause();
    await container.unpause();
    await container.rename({ name: "node-renamed" });
    await container.update({ Memory: 48 << 20, MemorySwap: 96 << 20 });
    assert.equal((await container.stats({ stream: false })).name, "/node-renamed");
    assert.ok((await container.top()).Processes.length);
    const found = await docker.listContainers({ filters: { label: ["by=dockerode"] } });
    assert.deepEqual(found.map((one) => one.Id), [container.id]);
    await container.restart();
    await container.stop();
    assert.equal((await container.wait()).StatusCode, 137);
    await container.remove({ v: true });
}

async function streams() {
    const container = await docker.createContainer({
        Image: "busybox", Cmd: ["sh", "-c", "echo first; exec cat"], OpenStdin: true,
        StdinOnce: true, AttachStdin: true, AttachStdout: true, AttachStderr: true,
    });
    const attached = await container.attach(
        { stream: true, hijack: true, stdin: true, stdout: true, stderr: true });
    const [out] = split(attached);
    await container.start();
    attached.write("typed\n");
    attached.end();
    assert.equal(await out, "first\ntyped\n");
    assert.equal((await container.wait()).StatusCode, 0);
    const log = await container.logs({ stdout: true, stderr: true });
    assert.ok(log.toString().includes("typed"));
    await container.remove();

    const sleeper = await docker.createContainer({ Image: "busybox", Cmd: SLEEP });
    await sleeper.start();
    const exec = await sleeper.exec({
        Cmd: ["sh", "-c", "cat; echo $A >&2; exit 5"], Env: ["A=b"], AttachStdin: true,
        AttachStdout: true, AttachStderr: true,
    });
    const stream = await exec.start({ hijack: true, stdin: true });
    const texts = split(stream);
    stream.end("in");
    assert.deepEqual(await Promise.all(texts), ["in", "b\n"]);
    assert.equal((await exec.inspect()).ExitCode, 5);
    const terminal = await sleeper.exec({ Cmd: ["sh"], Tty: true, AttachStdin: true, AttachStdout: true });
    const raw = await terminal.start({ hijack: true, stdin: true, Tty: true });
    await terminal.resize({ h: 31, w: 97 });
    const seen = text(raw);
    raw.write("stty size; exit\n");
    assert.match(await seen, /31 97/);
    await sleeper.remove({ force: true });
}

async function files() {
    const container = await docker.createContainer({ Image: "busybox", Cmd: SLEEP });
    await container.putArchive(archive({ f: "data" }), { path: "/tmp" });
    const extract = tar.extract();
    let got;
    extract.on("entry", async (header, entry, next) => {
        got = [header.name, await text(entry)];
        next();
    });
    (await container.getArchive({ path: "/tmp/f" })).pipe(extract);
    await once(extract, "finish");
    assert.deepEqual(got, ["f", "data"]);
    const { Id } = await container.commit({ repo: "node-commit", tag: "1" });
    await container.remove();
    const image = docker.getImage("node-commit:1");
    assert.equal((await image.inspect()).Id, Id);
    await image.tag({ repo: "node-commit", tag: "2" });
    const saved = await buffer(await image.get());
    await docker.getImage("node-commit:2").remove();
    await image.remove();
    const told = await followed(await docker.loadImage(require("node:stream").Readable.from(saved)));
    assert.ok(told.some((line) => /Loaded image: node-commit:1/.test(line.stream)));
    await image.remove();
}

async function build() {
    const context = archive({ Dockerfile: "FROM busybox\nCOPY f /f\nRUN cat /f > /g\n", f: "built" });
    const told = await followed(await docker.buildImage(context, { t: "node-built" }));
    assert.ok(told.some((line) => /Successfully tagged/.test(line.stream ?? "")));
    const failing = archive({ Dockerfile: "FROM busybox\nRUN exit 7\n" });
    await assert.rejects(async () => {
        const lines = await followed(await docker.buildImage(failing, {}));
        throw new Error(lines.at(-1).error);
    }, /returned a non-zero code: 7/);
    await docker.getImage("node-built").remove();
    await assert.rejects(docker.pull("127.0.0.1:1/none:1"), /connection refused/);
}

async function things() {
    const volume = await docker.createVolume({ Name: "node-volume", Labels: { a: "b" } });
    const network = await docker.createNetwork({ Name: "node-net", Labels: { a: "b" } });
    const container = await docker.createContainer({
        Image: "busybox", Cmd: ["sh", "-c", "echo kept > /v/f; exec sleep 60"],
        HostConfig: { Binds: [`${volume.name}:/v`], NetworkMode: "node-net" },
        NetworkingConfig: { EndpointsConfig: { "node-net": { Aliases: ["alias"] } } },
    });
    await container.start();
    assert.ok(container.id in (await network.inspect()).Containers);
    await assert.rejects(volume.remove(), { statusCode: 409 });
    await network.disconnect({ Container: container.id, Force: true });
    await network.connect({ Container: container.id });
    const filters = { label: ["a=b"] };
    assert.equal((await docker.listVolumes({ filters })).Volumes[0].Name, "node-volume");
    assert.equal((await docker.listNetworks({ filters }))[0].Name, "node-net");
    await container.remove({ force: true });
    await network.remove();
    await volume.remove();
    await docker.pruneVolumes();
}

async function events() {
    const stream = await docker.getEvents({ filters: { type: ["container"], event: ["die"] } });
    const container = await docker.createContainer({ Image: "busybox", Cmd: ["false"] });
    await container.start();
    const [data] = await once(stream, "data");
    const event = JSON.parse(data);
    assert.deepEqual([event.Action, event.Actor.Attributes.exitCode], ["die", "1"]);
    stream.destroy();
    await container.remove();
}

(async () => {
    for (const part of [system, run, life, streams, files, build, things, events]) await part();
})().catch((error) => { console.error(error); process.exit(1); });
