import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, mkdtempSync, openSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { connect as netConnect, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Duplex } from 'node:stream';
import test, { after } from 'node:test';
import { type Channel, connect, isTransportError, listen, parseAddress } from '../../src/transport/index.ts';
import { digest, hasCode } from '../contract/channel.ts';

const folder = mkdtempSync(join(tmpdir(), 'vmferry-connect-'));
after(() => rmSync(folder, { recursive: true }));

test('nobody there: refused, with the address and the name of the error', async () => {
  for (const [uri, errno] of [
    ['tcp:127.0.0.1:1', 'ECONNREFUSED'],
    [`unix:${folder}/none`, 'ENOENT'],
    [`file:${folder}/none/file`, 'ENOENT'],
    ['fd:987654', 'EBADF'],
  ] as const) {
    await assert.rejects(
      connect(parseAddress(uri)),
      (error: Error) =>
        hasCode('TRANSPORT_REFUSED')(error) && error.message.includes(uri) && error.message.includes(errno),
      uri,
    );
  }
  await assert.rejects(connect(parseAddress('tcp::4444')), hasCode('TRANSPORT_ADDRESS'));
  await assert.rejects(connect(parseAddress(`file:${folder}`)), hasCode('TRANSPORT_REFUSED', 'TRANSPORT_ADDRESS'));
});

test('a peer that does not answer: timeout, or the signal', async () => {
  // A stopped process whose backlog is full: the kernel answers nobody.
  const program = `const s = require('net').createServer().listen({ port: 0, host: '127.0.0.1', backlog: 1 }, () => console.log(s.address().port))`;
  const child = spawn(process.execPath, ['-e', program], { stdio: ['ignore', 'pipe', 'inherit'] });
  const [line] = (await once(child.stdout, 'data')) as [Buffer];
  const port = Number(line);
  child.kill('SIGSTOP');
  const fillers: Socket[] = [];
  try {
    for (let i = 0; i < 8; i++) fillers.push(netConnect(port, '127.0.0.1').on('error', () => {}));
    await new Promise((resolve) => setTimeout(resolve, 50));
    const address = parseAddress(`tcp:127.0.0.1:${port}`);
    await assert.rejects(connect(address, { timeoutMs: 50 }), hasCode('TRANSPORT_TIMEOUT'));
    const abort = new AbortController();
    const reason = new Error('changed my mind');
    const connecting = connect(address, { signal: abort.signal });
    abort.abort(reason);
    await assert.rejects(connecting, (error: Error) => hasCode('TRANSPORT_CLOSED')(error) && error.cause === reason);
  } finally {
    for (const socket of fillers) socket.destroy();
    child.kill('SIGKILL');
  }
});

test('file: bytes before the offset stay, those behind it go', async () => {
  const path = join(folder, 'file');
  writeFileSync(path, 'head|old old old');
  const channel = await connect({ kind: 'file', path, offset: 5 });
  await channel.write(Buffer.from('new'));
  await channel.end();
  await channel.closed;
  assert.equal(readFileSync(path, 'latin1'), 'head|new');
  const back = await (await listen({ kind: 'file', path, offset: 2 })).accept();
  const chunk = await back.read();
  assert.equal(chunk?.bytes.toString('latin1', chunk.start, chunk.end), 'ad|new');
  back.destroy();
});

test('fd: an inherited socket carries both directions', async () => {
  const program = `
    import { listen } from ${JSON.stringify(new URL('../../src/transport/index.js', import.meta.url).href)};
    const channel = await (await listen({ kind: 'fd', fd: 3 })).accept();
    for (let chunk; (chunk = await channel.read()) !== null; ) await channel.write(Buffer.from(chunk.bytes.subarray(chunk.start, chunk.end)));
    await channel.end();
    channel.destroy();`;
  const child = spawn(process.execPath, ['--input-type=module', '-e', program], {
    stdio: ['ignore', 'inherit', 'inherit', 'pipe'],
  });
  const ours = child.stdio[3] as Duplex;
  const sent = Buffer.alloc(5_000_000, 'abcdefg');
  const back: Buffer[] = [];
  ours.on('data', (bytes: Buffer) => back.push(bytes));
  ours.end(sent);
  await once(ours, 'end');
  assert.ok(Buffer.concat(back).equals(sent));
});

test('fd: the channel owns the descriptor and closes it', async () => {
  const fd = openSync(join(folder, 'owned'), 'w');
  const channel = await connect({ kind: 'fd', fd });
  channel.destroy();
  await channel.closed;
  assert.throws(() => closeSync(fd), /EBADF/);
  const folderFd = openSync(folder, 'r');
  await assert.rejects(connect({ kind: 'fd', fd: folderFd }), hasCode('TRANSPORT_ADDRESS'));
  closeSync(folderFd);
});

test('exec: a command that fails is an error that names the status', async () => {
  const failed = (status: number | undefined, signal?: string) => (error: unknown) =>
    isTransportError(error) &&
    error.fault.code === 'TRANSPORT_EXEC' &&
    error.fault.status === status &&
    error.fault.signal === signal;

  const reading = await (await listen(parseAddress('exec:echo part; exit 3'))).accept();
  await assert.rejects(digest(reading), failed(3));
  reading.destroy();

  const writing = await connect(parseAddress('exec:head -c 10 > /dev/null; exit 4'));
  await assert.rejects(fill(writing), failed(4));
  writing.destroy();

  const ending = await connect(parseAddress('exec:cat > /dev/null; kill -9 $$'));
  await ending.write(Buffer.from('x'));
  await assert.rejects(ending.end(), failed(undefined, 'SIGKILL'));
  ending.destroy();

  const unknown = await connect(parseAddress('exec:/no/such/command'));
  await assert.rejects(fill(unknown), failed(127));
  await assert.rejects(connect({ kind: 'exec', command: ['/no/such/command'] }), hasCode('TRANSPORT_REFUSED'));
});

test('exec: end waits until the command is done with the bytes', async () => {
  const path = join(folder, 'slow');
  const channel = await connect(parseAddress(`exec:sleep 0.2; cat > ${path}; exit 0`));
  await channel.write(Buffer.from('all of it'));
  await channel.end();
  assert.equal(readFileSync(path, 'latin1'), 'all of it');
});

test('exec: destroy kills the command and what it started', async () => {
  const mark = `3${process.pid}`;
  const channel = await connect(parseAddress(`exec:sleep ${mark} & sleep ${mark}; true`));
  await until(() => sleepers(mark) === 2);
  channel.destroy();
  await channel.closed;
  await until(() => sleepers(mark) === 0);
});

function sleepers(mark: string): number {
  return readdirSync('/proc').filter((pid) => {
    try {
      return /^\d+$/.test(pid) && readFileSync(`/proc/${pid}/cmdline`, 'latin1') === `sleep\0${mark}\0`;
    } catch {
      return false;
    }
  }).length;
}

async function until(holds: () => boolean): Promise<void> {
  for (const deadline = Date.now() + 10_000; !holds(); ) {
    assert.ok(Date.now() < deadline, 'deadline');
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

async function fill(channel: Channel): Promise<void> {
  for (;;) await channel.write(Buffer.alloc(256 * 1024));
}

test('no descriptor and no process stays behind', async () => {
  const cycle = async () => {
    for (const uri of ['tcp:127.0.0.1:0', `unix:${folder}/cycle`]) {
      const listener = await listen(parseAddress(uri));
      const [ours, theirs] = await Promise.all([connect(listener.address), listener.accept()]);
      const unaccepted = await connect(listener.address);
      await ours.write(Buffer.alloc(10));
      for (const channel of [ours, theirs, unaccepted]) channel.destroy();
      listener.close();
      await Promise.all([ours.closed, theirs.closed, unaccepted.closed]);
    }
    for (const uri of [`file:${folder}/cycle-file`, 'exec:cat > /dev/null', 'exec:sleep 1000']) {
      const channel = await connect(parseAddress(uri));
      await channel.write(Buffer.alloc(10));
      channel.destroy();
      await channel.closed;
    }
  };
  await cycle();
  const before = readdirSync('/proc/self/fd').length;
  for (let i = 0; i < 10; i++) await cycle();
  await until(() => readdirSync('/proc/self/fd').length <= before);
  const children = readFileSync(`/proc/self/task/${process.pid}/children`, 'latin1');
  assert.equal(children.trim(), '');
});
