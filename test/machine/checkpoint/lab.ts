/** Guests of real QEMUs that go into checkpoints and come out of them, by QEMU's hand or by ours. */
import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { CheckpointReader, CheckpointWriter } from '../../../src/machine/index.ts';
import { dialer, IncomingMigration, OutgoingMigration } from '../../../src/migration/index.ts';
import { type QemuPeer, QemuProcess } from '../../../src/qemu/index.ts';
import type { Settings } from '../../../src/settings/index.ts';
import { connect, formatAddress, listen, parseAddress } from '../../../src/transport/index.ts';
import { bootProgram } from '../../support/guests/boot-sector.ts';
import { bootGuest, type Guest } from '../../support/guests/guest.ts';
import { testSettings } from '../../support/move.ts';

const MACHINE = 'pc-i440fx-7.2';
export interface Lab {
  readonly folder: string;
  readonly guest: Guest;
  start(peer: QemuPeer, incoming?: boolean, args?: readonly string[]): Promise<QemuProcess>;
}

/** A folder and processes that are gone when `body` is done. */
export async function inLab(body: (lab: Lab) => Promise<void>): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), 'vmferry-checkpoint-'));
  const guest = bootGuest(bootProgram({ order: 'random', pageCount: 8192, spin: 500 }));
  const processes: QemuProcess[] = [];
  const start = async (peer: QemuPeer, incoming = false, args: readonly string[] = []) => {
    const qemu = await QemuProcess.start({
      peer,
      args: async (own) => [
        ...['-nodefaults', '-machine', MACHINE, '-accel', 'tcg', '-m', guest.memory],
        ...(await guest.args(own, folder)),
        ...args,
        ...(incoming ? ['-incoming', 'defer'] : []),
      ],
    });
    processes.push(qemu);
    if (!incoming) await guest.ready(qemu);
    return qemu;
  };
  try {
    await body({ folder, guest, start });
  } finally {
    await Promise.all(processes.map((qemu) => qemu.stop()));
    await rm(folder, { recursive: true });
  }
}

/** With multifd: how many channels, and whether past the page cache. */
export interface Channels {
  readonly count: number;
  readonly directIo: boolean;
}

function settingsOf(channels: Channels | undefined): Settings {
  return testSettings((settings) => {
    if (channels === undefined) return;
    settings.setCapabilities([{ capability: 'multifd', state: true }]);
    settings.setParameters({ 'multifd-channels': channels.count, 'direct-io': channels.directIo });
  });
}

/** The same at QEMU. direct-io is of whoever has the file. */
async function multifd(qemu: QemuProcess, channels: Channels | undefined, hasFile: boolean): Promise<void> {
  if (channels === undefined) return;
  await capability(qemu, 'multifd');
  const { count, directIo } = channels;
  await qemu.qmp.execute('migrate-set-parameters', {
    'multifd-channels': count,
    ...(hasFile ? { 'direct-io': directIo } : {}),
  });
}

/** QEMU's guest into a checkpoint of ours; it was running, so it will run where it is loaded. */
export async function save(qemu: QemuProcess, file: string, channels?: Channels): Promise<void> {
  const listener = await listen(parseAddress('tcp:127.0.0.1:0'));
  const settings = settingsOf(channels);
  const incoming = new IncomingMigration({
    machine: new CheckpointWriter(file, { directIo: settings.parameter('direct-io') }),
    settings,
    takesAnyMachine: true,
    listener,
  });
  const run = incoming.run();
  await capability(qemu, 'return-path');
  await multifd(qemu, channels, false);
  await qemu.qmp.execute('migrate', { uri: formatAddress(listener.address) });
  const result = await run;
  listener.close();
  if (result.error !== undefined) throw result.error;
  await settled(qemu, 'completed');
}

/** A checkpoint into a waiting QEMU. */
export async function restore(file: string, qemu: QemuProcess, offset = 0, channels?: Channels): Promise<void> {
  const settings = settingsOf(channels);
  const reader = await CheckpointReader.open(file, { offset, directIo: settings.parameter('direct-io') });
  await multifd(qemu, channels, false);
  const path = join(qemu.folder, 'incoming.sock');
  await qemu.qmp.execute('migrate-incoming', { uri: `unix:${path}` });
  const outgoing = new OutgoingMigration({
    machine: reader,
    settings,
    connect: (signal) => connect(parseAddress(`unix:${path}`), { signal }),
    dial: dialer(parseAddress(`unix:${path}`)),
    returnPath: () => true,
  });
  const result = await outgoing.run();
  await reader.close();
  if (result.status !== 'completed') throw result.error;
  await settled(qemu, 'completed');
}

/** QEMU loads the file itself. */
export async function load(qemu: QemuProcess, uri: string, channels?: Channels): Promise<void> {
  await capability(qemu, 'mapped-ram');
  await multifd(qemu, channels, true);
  await qemu.qmp.execute('migrate-incoming', { uri });
  await settled(qemu, 'completed');
}

export function capability(
  qemu: QemuProcess,
  name: 'mapped-ram' | 'multifd' | 'return-path' | 'x-ignore-shared',
): Promise<unknown> {
  return qemu.qmp.execute('migrate-set-capabilities', { capabilities: [{ capability: name, state: true }] });
}

/** QEMU writes the file itself. */
export async function store(qemu: QemuProcess, uri: string, channels?: Channels): Promise<void> {
  await capability(qemu, 'mapped-ram');
  await multifd(qemu, channels, true);
  await qemu.qmp.execute('migrate', { uri });
  await settled(qemu, 'completed');
}

/** Waits for the end of the process's migration. */
export async function settled(qemu: QemuProcess, wanted: string): Promise<void> {
  for (const deadline = Date.now() + 30_000; ; ) {
    const { status, 'error-desc': why } = (await qemu.qmp.execute('query-migrate')) as Record<string, unknown>;
    if (status === wanted) return;
    assert.ok(status !== 'failed' && Date.now() < deadline, `${qemu.label}: migration is ${status}: ${why}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}
