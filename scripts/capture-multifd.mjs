// Records real multifd migrations as test fixtures: test/fixtures/multifd/<method>-<version>.<channel>.bin.gz, channel being `main` or the
// id that the channel's initial packet names, and provenance.json with the hash of the memory that arrived.
//
//   VMFERRY_QEMU_7_2=... VMFERRY_QEMU_10_0=... VMFERRY_QEMU_11_1=... node scripts/capture-multifd.mjs [NAME-PREFIX...]
//
// Two QEMUs of one version, a proxy between them that writes down what passes; nothing is stripped. The guest is its firmware: it dirties
// 100 pages over and over. Its RAM is one block, mem0, which at the destination is a file, so that what arrived can be read.
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { connect, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { gzipSync } from 'node:zlib';

const FOLDER = join(dirname(dirname(fileURLToPath(import.meta.url))), 'test', 'fixtures', 'multifd');
const VERSIONS = ['7.2', '10.0', '11.1'];
const METHODS = ['none', 'zlib', 'zstd'];
const CHANNELS = 3;
const DEADLINE_MS = 60_000;
const UUID = '5c7e0f1a-8d2b-4c3e-9f60-718293a4b5c6';

/** The firmware of scripts/capture-fixtures.mjs: increments a word in each page from 128 KiB to 512 KiB, for ever. */
const FIRMWARE = Buffer.alloc(64 * 1024);
Buffer.from('b800208ed8ff060000ba140031c9e2fe4a75f90500013d008072e8ebe3', 'hex').copy(FIRMWARE);
Buffer.from('ea000000f0', 'hex').copy(FIRMWARE, 0xfff0);

class Vm {
  constructor(binary, args) {
    this.replies = [];
    this.errors = '';
    this.process = spawn(binary, [...args, '-qmp', 'stdio'], { stdio: ['pipe', 'pipe', 'pipe'] });
    this.exited = new Promise((resolve) => this.process.once('exit', resolve));
    this.process.stderr.on('data', (data) => {
      this.errors += data;
    });
    createInterface(this.process.stdout).on('line', (line) => {
      const message = JSON.parse(line);
      if ('return' in message || 'error' in message) this.replies.shift()?.(message);
    });
  }

  async qmp(execute, args = {}) {
    let timer;
    const reply = await Promise.race([
      new Promise((resolve) => {
        this.replies.push(resolve);
        this.process.stdin.write(JSON.stringify({ execute, arguments: args }) + '\n');
      }),
      this.exited.then(() => ({ error: { desc: `QEMU is gone: ${this.errors}` } })),
      new Promise((resolve) => {
        timer = setTimeout(resolve, DEADLINE_MS, { error: { desc: 'no answer' } });
      }),
    ]).finally(() => clearTimeout(timer));
    if (reply.error) throw new Error(`${execute}: ${reply.error.desc}`);
    return reply.return;
  }

  /** Polls query-migrate until `done` says so: QMP has no call that waits. */
  async until(done) {
    for (const untilMs = Date.now() + DEADLINE_MS; ; ) {
      const info = await this.qmp('query-migrate');
      if (done(info)) return;
      if (info.status === 'failed' || Date.now() > untilMs) throw new Error(`migration is ${info.status}`);
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }

  async quit() {
    this.process.kill('SIGKILL');
    await this.exited;
  }
}

/** Passes connections on in the order in which they come, as QEMU 7.2 takes the first one for the main channel. */
function proxy(path, target, streams) {
  const sockets = [];
  const server = createServer((source) => {
    const sink = connect(target);
    const stream = [];
    streams.push(stream);
    sockets.push(source, sink);
    source.on('data', (data) => {
      stream.push(data);
      sink.write(data);
    });
    sink.on('data', (data) => source.write(data));
    for (const [from, to] of [
      [source, sink],
      [sink, source],
    ]) {
      from.on('error', () => {});
      from.on('close', () => to.destroy());
    }
  }).listen(path);
  return () => {
    server.close();
    for (const socket of sockets) socket.destroy();
  };
}

async function capture(version, binary, method) {
  const folder = mkdtempSync(join(tmpdir(), 'vmferry-capture-'));
  writeFileSync(join(folder, 'firmware.bin'), FIRMWARE);
  const machine = version === '7.2' ? 'pc-i440fx-7.2' : `pc-q35-${version}`;
  const args = ['-nodefaults', '-display', 'none', '-accel', 'tcg', '-S', '-bios', join(folder, 'firmware.bin')];
  args.push('-machine', `${machine},memory-backend=mem0`, '-m', '16', '-uuid', UUID);
  const file = `memory-backend-file,id=mem0,size=16M,share=on,mem-path=${join(folder, 'memory')}`;
  const source = new Vm(binary, [...args, '-object', 'memory-backend-ram,id=mem0,size=16M']);
  const destination = new Vm(binary, [...args, '-object', file, '-incoming', 'defer']);
  const streams = [];
  const close = proxy(join(folder, 'proxy'), join(folder, 'incoming'), streams);
  try {
    for (const vm of [source, destination]) {
      await vm.qmp('qmp_capabilities');
      await vm.qmp('migrate-set-capabilities', { capabilities: [{ capability: 'multifd', state: true }] });
      await vm.qmp('migrate-set-parameters', { 'multifd-channels': CHANNELS, 'multifd-compression': method });
    }
    await destination.qmp('migrate-incoming', { uri: `unix:${join(folder, 'incoming')}` });
    await source.qmp('migrate-set-parameters', { 'max-bandwidth': 100_000, 'downtime-limit': 1 });
    await source.qmp('cont');
    await source.qmp('migrate', { uri: `unix:${join(folder, 'proxy')}` });
    await source.until((info) => info.ram?.['dirty-sync-count'] >= 4);
    await source.qmp('migrate-set-parameters', { 'max-bandwidth': 1_000_000_000, 'downtime-limit': 2000 });
    await source.until((info) => info.status === 'completed');
    await destination.until((info) => info.status === 'completed');
    const { qemu, package: distribution } = await source.qmp('query-version');
    return {
      streams: streams.map((chunks) => Buffer.concat(chunks)),
      facts: {
        qemu: `${qemu.major}.${qemu.minor}.${qemu.micro}`,
        package: distribution,
        command: ['qemu-system-x86_64', ...args].join(' ').replaceAll(folder, '$DIR'),
        parameters: { 'multifd-channels': CHANNELS, 'multifd-compression': method },
        memory: createHash('sha256')
          .update(readFileSync(join(folder, 'memory')))
          .digest('hex'),
      },
    };
  } finally {
    close();
    await source.quit();
    await destination.quit();
    rmSync(folder, { recursive: true, force: true });
  }
}

mkdirSync(FOLDER, { recursive: true });
const provenanceFile = join(FOLDER, 'provenance.json');
const provenance = existsSync(provenanceFile) ? JSON.parse(readFileSync(provenanceFile, 'utf8')) : {};
const prefixes = process.argv.slice(2);
for (const version of VERSIONS) {
  const binary = process.env[`VMFERRY_QEMU_${version.replace('.', '_')}`];
  for (const method of METHODS) {
    const name = `${method}-${version}`;
    if (prefixes.length > 0 && !prefixes.some((prefix) => name.startsWith(prefix))) continue;
    if (binary === undefined) {
      console.log(`${name} stays as it is: VMFERRY_QEMU_${version.replace('.', '_')} is not set`);
      continue;
    }
    const { streams, facts } = await capture(version, binary, method);
    const bytes = {};
    for (const stream of streams) {
      const channel = stream.readUInt32BE(0) === 0x11223344 ? stream[24] : 'main';
      const packed = gzipSync(stream, { level: 9 });
      writeFileSync(join(FOLDER, `${name}.${channel}.bin.gz`), packed);
      bytes[channel] = stream.length;
      console.log(`${name}.${channel}: ${stream.length} bytes, packed ${packed.length}`);
    }
    provenance[name] = { ...facts, bytes };
  }
}
const sorted = Object.fromEntries(Object.entries(provenance).sort(([a], [b]) => (a < b ? -1 : 1)));
writeFileSync(provenanceFile, JSON.stringify(sorted, null, 2) + '\n');
