/**
 * TLS beside clear text in the same run, over the main channel alone and over multifd channels: vmferry, and QEMU with its own TLS (GnuTLS). RAM that
 * does not compress, nothing that dirties it. Certificates on both sides, as migrations over a network have them.
 *
 *     node dist/bench/tls.js [--ram MiB] [--rounds N] [--channels 0,2] [--only TEXT]
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { findPeer } from '../src/qemu/index.ts';
import { TlsFolders } from '../test/support/tls-folders.ts';
import { type Contender, compete, machineLine, type Row, table } from './harness.ts';
import { checkpointToQemu, type MoveSettings, qemuToCheckpoint, qemuToQemu, vmferryToVmferry } from './moves.ts';
import { RandomRam } from './processes.ts';

const { values } = parseArgs({
  options: {
    ram: { type: 'string', default: '1024' },
    rounds: { type: 'string', default: '3' },
    /** 0: the main channel alone. */
    channels: { type: 'string', default: '0,2' },
    only: { type: 'string', default: '' },
  },
});

const found = await findPeer('11.1');
if (found === undefined) throw new Error('QEMU 11.1 is not here: npm run setup -- --peers');
const peer = found;
const folder = mkdtempSync(join(tmpdir(), 'vmferry-bench-'));
const folders = new TlsFolders(join(folder, 'tls'));
const dir = folders.x509('x509');
const ram = new RandomRam(Number(values.ram) * 1024 * 1024);
let serial = 0;
const bench = { peer, ram, path: (name: string) => join(folder, `${name}-${serial++}`) };
const log = (line: string) => process.stderr.write(`${line}\n`);

console.log(`${machineLine()}; ${values.ram} MiB; ${values.rounds} rounds after a warm-up; X.509, TLS 1.3`);
try {
  for (const channels of values.channels.split(',').map(Number)) {
    const clear: MoveSettings =
      channels === 0 ? {} : { capabilities: ['multifd'], parameters: { 'multifd-channels': channels } };
    const how = channels === 0 ? 'main channel' : `${channels} channels`;
    const base = `QEMU to QEMU, TLS, ${how}`;
    const file = join(folder, 'saved');
    const contenders: Contender[] = [
      { name: `QEMU to QEMU, clear, ${how}`, run: () => qemuToQemu(bench, clear) },
      { name: base, run: () => qemuToQemu(bench, inTls(clear)) },
      { name: `vmferry to vmferry, clear, ${how}`, run: () => vmferryToVmferry(bench, clear) },
      { name: `vmferry to vmferry, TLS, ${how}`, run: () => vmferryToVmferry(bench, inTls(clear)) },
      { name: `QEMU to vmferry checkpoint, TLS, ${how}`, run: () => qemuToCheckpoint(bench, inTls(clear), file) },
      { name: `vmferry checkpoint to QEMU, TLS, ${how}`, run: () => checkpointToQemu(bench, file, inTls(clear)) },
    ];
    const chosen = contenders.filter(({ name }) => name.includes(values.only));
    const rows = await compete(chosen, Number(values.rounds), log);
    console.log(`\n${table(rows, base)}\n\n${besideClear(rows, how)}`);
  }
} finally {
  ram.remove();
  rmSync(folder, { recursive: true, force: true });
}

/** What is left in TLS of the throughput in clear text, from the same rounds. */
function besideClear(rows: readonly Row[], how: string): string {
  const speed = (name: string) => rows.find((row) => row.name === `${name}, ${how}`)?.gbPerSecond.median ?? Number.NaN;
  const share = (who: string) => `${who} ${(speed(`${who}, TLS`) / speed(`${who}, clear`)).toFixed(2)}`;
  return `TLS / clear text, ${how}: ${share('QEMU to QEMU')}, ${share('vmferry to vmferry')}`;
}

function inTls({ capabilities = [], parameters = {} }: MoveSettings): MoveSettings {
  const credentials = { 'qom-type': 'tls-creds-x509', id: 'tls0', dir };
  return {
    capabilities,
    parameters: { ...parameters, 'tls-creds': 'tls0' },
    objects: {
      source: { ...credentials, endpoint: 'client' },
      destination: { ...credentials, endpoint: 'server' },
    },
  };
}
