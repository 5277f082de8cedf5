// Captures small migration streams of real QEMUs for the tests of src/wire: test/fixtures/streams/NAME.bin.gz and provenance.json.
//
//   VMFERRY_QEMU_7_2=... VMFERRY_QEMU_10_0=... VMFERRY_QEMU_11_1=... node scripts/capture-fixtures.mjs [NAME-PREFIX ...]
//
// Each variable names a qemu-system-x86_64 of that version; a missing one leaves its fixtures as they are. Nothing is stripped from
// the bytes. Guests run under TCG; listeners are unix sockets in a temporary folder.
import { createHash } from 'node:crypto';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { connect, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { gzipSync } from 'node:zlib';
import { binaryOf, FIRMWARE, readProvenance, UUID, VERSIONS, Vm, within, writeProvenance } from './capture-vm.mjs';

const FOLDER = join(dirname(dirname(fileURLToPath(import.meta.url))), 'test', 'fixtures', 'streams');

const PC = ['-machine', 'pc-i440fx-7.2', '-m', '16'];
const DEVICES = [
  ['-machine', 'pc-q35-7.2', '-m', '16', '-smp', '2'],
  [
    '-device',
    'virtio-net-pci,romfile=',
    '-device',
    'e1000,romfile=',
    '-device',
    'virtio-serial',
    '-device',
    'nec-usb-xhci',
    '-device',
    'usb-tablet',
  ],
  ['-device', 'virtio-rng-pci', '-device', 'virtio-balloon', '-device', 'intel-hda'],
].flat();
/** In a named file: since 8.0 QEMU ignores no other shared memory. */
const SHARED_MEMORY = [
  '-object',
  'memory-backend-file,id=mem0,size=16M,share=on,mem-path=$DIR/mem0',
  '-machine',
  'memory-backend=mem0',
];

/** `capture(vm)` returns the bytes by file name suffix ('' = the main stream). `only`: versions; all by default. */
const SCENARIOS = [
  { name: 'pc', args: PC, capture: toPipe },
  { name: 'q35-devices', args: DEVICES, capture: toPipe },
  { name: 'isapc', args: ['-machine', 'isapc', '-cpu', 'qemu32', '-m', '16'], capture: toPipe },
  { name: 'microvm', args: ['-machine', 'microvm', '-m', '16'], capture: toPipe },
  { name: 'q35-own', only: ['10.0', '11.1'], args: ['-machine', 'pc-q35-VERSION', '-m', '16'], capture: toPipe },
  { name: 'no-vmdesc', args: ['-machine', 'pc-i440fx-7.2,suppress-vmdesc=on', '-m', '16'], capture: toPipe },
  { name: 'uuid', args: [...PC, '-uuid', UUID], capabilities: ['validate-uuid'], capture: toPipe },
  {
    name: 'ignore-shared',
    args: [...PC, ...SHARED_MEMORY],
    capabilities: ['x-ignore-shared'],
    capture: toPipe,
  },
  {
    name: 'dirty-bitmap',
    args: [...PC, '-drive', 'if=ide,driver=null-co,size=1M,node-name=disk0'],
    capabilities: ['dirty-bitmaps'],
    capture: withBitmap,
  },
  { name: 'return-path', args: PC, capabilities: ['return-path'], capture: answered },
  { name: 'postcopy-advise', args: PC, capabilities: ['postcopy-ram', 'return-path'], capture: answered },
  { name: 'xbzrle', args: PC, capabilities: ['xbzrle'], capture: whileDirtying },
  { name: 'postcopy', args: PC, capabilities: ['postcopy-ram'], capture: postcopy },
  {
    name: 'mapped-ram',
    only: ['10.0', '11.1'],
    args: PC,
    capabilities: ['mapped-ram'],
    capture: (vm) => toFile(vm, 0),
  },
  {
    name: 'mapped-ram-offset',
    only: ['11.1'],
    args: PC,
    capabilities: ['mapped-ram'],
    capture: (vm) => toFile(vm, 5000),
  },
  {
    name: 'mapped-ram-ignore-shared',
    // 10.0 fails: it writes the bitmap of a block that has none.
    only: ['11.1'],
    args: [...PC, ...SHARED_MEMORY],
    capabilities: ['mapped-ram', 'x-ignore-shared'],
    capture: (vm) => toFile(vm, 0),
  },
];

async function toPipe(vm) {
  const path = join(vm.folder, 'stream');
  await vm.qmp('migrate', { uri: `exec:cat > ${path}` });
  await vm.status('completed');
  return { '': readFileSync(path) };
}

async function toFile(vm, offset) {
  const path = join(vm.folder, 'file');
  await vm.qmp('migrate', { uri: `file:${path},offset=${offset}` });
  await vm.status('completed');
  return { '': readFileSync(path) };
}

async function withBitmap(vm) {
  await vm.qmp('block-dirty-bitmap-add', { node: 'disk0', name: 'bitmap0', granularity: 65536, persistent: false });
  return await toPipe(vm);
}

/** A few slow rounds with xbzrle, then the guest is let go. */
async function whileDirtying(vm) {
  await vm.qmp('migrate-set-parameters', { 'max-bandwidth': 80_000, 'downtime-limit': 1 });
  const path = join(vm.folder, 'stream');
  await vm.qmp('cont');
  await vm.qmp('migrate', { uri: `exec:cat > ${path}` });
  const deltas = async () => {
    while (((await vm.qmp('query-migrate'))['xbzrle-cache']?.pages ?? 0) < 40) {
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  };
  await within('pages sent as differences', deltas());
  await vm.qmp('migrate-set-parameters', { 'max-bandwidth': 1_000_000_000, 'downtime-limit': 2000 });
  await vm.status('completed');
  return { '': readFileSync(path) };
}

/** The least a destination says: PONG 1 to the first PING, SHUT 0 once the source waits for it. */
async function answered(vm) {
  const path = join(vm.folder, 'socket');
  const ping = Buffer.from('0800020004', 'hex');
  const chunks = [];
  let peer;
  const server = createServer((socket) => {
    peer = socket;
    socket.on('error', () => {});
    socket.on('data', (data) => {
      chunks.push(data);
      if (chunks.length === 1 && data.includes(ping)) socket.write(Buffer.from('0002000400000001', 'hex'));
    });
  }).listen(path);
  try {
    await vm.qmp('migrate', { uri: `unix:${path}` });
    for (let status = ''; status !== 'finish-migrate'; ) ({ status } = await vm.qmp('query-status'));
    // The source shows finish-migrate before its last bytes: VMDESC is the last element and ends in the last chunk.
    await within('the description', untilDescription(chunks));
    peer.write(Buffer.from('0001000400000000', 'hex'));
    await vm.status('completed');
  } finally {
    server.close();
    peer?.destroy();
  }
  return { '': Buffer.concat(chunks) };
}

async function untilDescription(chunks) {
  for (;;) {
    const all = Buffer.concat(chunks);
    if (all.at(-1) === 0x7d) {
      const at = all.lastIndexOf(Buffer.from('0006', 'hex'), all.length - 100);
      for (let from = at; from >= 0; from = all.lastIndexOf(Buffer.from('0006', 'hex'), from - 1)) {
        if (from + 6 + all.readUInt32BE(from + 2) === all.length) return;
        if (from === 0) break;
      }
    }
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

/** A real postcopy to a QEMU of the same version, recorded on the way; on the way, it is cut and recovered once. */
async function postcopy(vm) {
  const destinationArgs = [...vm.args.filter((arg) => arg !== '-S'), '-incoming', 'defer'];
  const destination = new Vm(vm.version, vm.binary, destinationArgs, vm.folder);
  const record = { '': [], '.return-path': [], '.recovery': [], '.recovery.return-path': [] };
  const servers = [];
  const sockets = [];
  try {
    await destination.setUp(['postcopy-ram']);
    const incoming = join(vm.folder, 'incoming');
    await destination.qmp('migrate-incoming', { uri: `unix:${incoming}` });
    await vm.qmp('migrate-set-parameters', {
      'max-bandwidth': 200_000,
      'downtime-limit': 1,
      'max-postcopy-bandwidth': 20_000,
    });
    await vm.qmp('cont');
    await vm.qmp('migrate', { uri: `unix:${proxy('first', incoming, '', '.return-path')}` });
    await within('a first round', rounds(vm, 2));
    await vm.qmp('migrate-start-postcopy');
    await vm.status('postcopy-active');
    await destination.status('postcopy-active');
    // Later ones have sent everything before the guest misses a page.
    if (vm.version === '7.2') await within('requests for pages', requested(vm));
    for (const socket of sockets) socket.destroy();
    await vm.status('postcopy-paused');
    await destination.status('postcopy-paused');
    const again = join(vm.folder, 'recovery');
    await destination.qmp('migrate-recover', { uri: `unix:${again}` });
    await vm.qmp('migrate-set-parameters', { 'max-postcopy-bandwidth': 0 });
    await vm.qmp('migrate', {
      uri: `unix:${proxy('second', again, '.recovery', '.recovery.return-path')}`,
      resume: true,
    });
    await vm.status('completed');
    await destination.status('completed');
  } finally {
    for (const server of servers) server.close();
    for (const socket of sockets) socket.destroy();
    await destination.quit();
  }
  return Object.fromEntries(Object.entries(record).map(([name, chunks]) => [name, Buffer.concat(chunks)]));

  function proxy(name, to, forth, back) {
    const path = join(vm.folder, name);
    const server = createServer((source) => {
      const target = connect(to);
      sockets.push(source, target);
      for (const [from, into, key] of [
        [source, target, forth],
        [target, source, back],
      ]) {
        from.on('error', () => {});
        from.on('data', (data) => {
          record[key].push(data);
          into.write(data);
        });
        from.on('close', () => into.destroy());
      }
    }).listen(path);
    servers.push(server);
    return path;
  }
}

async function requested(vm) {
  while (((await vm.qmp('query-migrate')).ram?.['postcopy-requests'] ?? 0) < 3) {
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

async function rounds(vm, count) {
  for (;;) {
    if (((await vm.qmp('query-migrate')).ram?.['dirty-sync-count'] ?? 0) >= count) return;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

mkdirSync(FOLDER, { recursive: true });
const provenanceFile = join(FOLDER, 'provenance.json');
const provenance = readProvenance(provenanceFile);
const prefixes = process.argv.slice(2);
for (const version of VERSIONS) {
  const { variable, binary } = binaryOf(version);
  if (binary === undefined) {
    console.log(`${variable} is not set: fixtures of ${version} stay as they are`);
    continue;
  }
  for (const scenario of SCENARIOS) {
    const name = `${scenario.name}-${version}`;
    if (scenario.only !== undefined && !scenario.only.includes(version)) continue;
    if (prefixes.length > 0 && !prefixes.some((prefix) => name.startsWith(prefix))) continue;
    await captureOne(name, scenario, version, binary);
  }
}
writeProvenance(provenanceFile, provenance);

async function captureOne(name, scenario, version, binary) {
  const folder = mkdtempSync(join(tmpdir(), 'vmferry-capture-'));
  const firmware = join(folder, 'firmware.bin');
  writeFileSync(firmware, FIRMWARE);
  const args = ['-nodefaults', '-display', 'none', '-accel', 'tcg', '-S', '-bios', firmware];
  args.push(...scenario.args.map((arg) => arg.replace('VERSION', version).replace('$DIR', folder)));
  const vm = new Vm(version, binary, args, folder);
  try {
    await vm.setUp(scenario.capabilities ?? []);
    const facts = await vm.versionFacts();
    const captured = await scenario.capture(vm);
    for (const [suffix, bytes] of Object.entries(captured)) {
      const file = `${name}${suffix}.bin.gz`;
      const packed = gzipSync(bytes, { level: 9 });
      writeFileSync(join(FOLDER, file), packed);
      provenance[file] = {
        ...facts,
        command: ['qemu-system-x86_64', ...args].join(' ').replaceAll(folder, '$DIR'),
        capabilities: scenario.capabilities ?? [],
        bytes: bytes.length,
        sha256: createHash('sha256').update(bytes).digest('hex'),
      };
      console.log(`${file}: ${bytes.length} bytes, packed ${packed.length}`);
    }
  } catch (error) {
    process.exitCode = 1;
    console.log(`${name}: ${error.message} ${vm.errors}`);
  } finally {
    await vm.quit();
    rmSync(folder, { recursive: true, force: true });
  }
}
