// Records real multifd migrations as test fixtures: test/fixtures/multifd/<method>-<version>.<channel>.bin.gz, channel being `main` or the
// id that the channel's initial packet names, and provenance.json with the hash of the memory that arrived.
//
//   VMFERRY_QEMU_7_2=... VMFERRY_QEMU_10_0=... VMFERRY_QEMU_11_1=... node scripts/capture-multifd.mjs [NAME-PREFIX...]
//
// Two QEMUs of one version, a proxy between them that writes down what passes; nothing is stripped. The guest is its firmware: it dirties
// 100 pages over and over. Its RAM is one block, mem0, which at the destination is a file, so that what arrived can be read.
import { createHash } from 'node:crypto';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { connect, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { gzipSync } from 'node:zlib';
import { binaryOf, FIRMWARE, readProvenance, UUID, VERSIONS, Vm, writeProvenance } from './capture-vm.mjs';

const FOLDER = join(dirname(dirname(fileURLToPath(import.meta.url))), 'test', 'fixtures', 'multifd');
const METHODS = ['none', 'zlib', 'zstd'];
const CHANNELS = 3;

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
  const source = new Vm(version, binary, [...args, '-object', 'memory-backend-ram,id=mem0,size=16M'], folder);
  const destination = new Vm(version, binary, [...args, '-object', file, '-incoming', 'defer'], folder);
  const streams = [];
  const close = proxy(join(folder, 'proxy'), join(folder, 'incoming'), streams);
  try {
    for (const vm of [source, destination]) {
      await vm.setUp(['multifd']);
      await vm.qmp('migrate-set-parameters', { 'multifd-channels': CHANNELS, 'multifd-compression': method });
    }
    await destination.qmp('migrate-incoming', { uri: `unix:${join(folder, 'incoming')}` });
    await source.qmp('migrate-set-parameters', { 'max-bandwidth': 100_000, 'downtime-limit': 1 });
    await source.qmp('cont');
    await source.qmp('migrate', { uri: `unix:${join(folder, 'proxy')}` });
    await source.until((info) => info.ram?.['dirty-sync-count'] >= 4, 'in its fourth round');
    await source.qmp('migrate-set-parameters', { 'max-bandwidth': 1_000_000_000, 'downtime-limit': 2000 });
    await source.status('completed');
    await destination.status('completed');
    return {
      streams: streams.map((chunks) => Buffer.concat(chunks)),
      facts: {
        ...(await source.versionFacts()),
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
const provenance = readProvenance(provenanceFile);
const prefixes = process.argv.slice(2);
for (const version of VERSIONS) {
  const { variable, binary } = binaryOf(version);
  for (const method of METHODS) {
    const name = `${method}-${version}`;
    if (prefixes.length > 0 && !prefixes.some((prefix) => name.startsWith(prefix))) continue;
    if (binary === undefined) {
      console.log(`${name} stays as it is: ${variable} is not set`);
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
writeProvenance(provenanceFile, provenance);
