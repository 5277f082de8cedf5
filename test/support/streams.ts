/** Whole streams as bytes: recorded from a machine, edited by a test, played to a destination. */
import {
  createWorkload,
  type DestinationMachine,
  type SourceMachine,
  type WorkloadMachine,
} from '../../src/machine/index.ts';
import { IncomingMigration, type IncomingResult, OutgoingMigration } from '../../src/migration/index.ts';
import type { SettingsView } from '../../src/settings/index.ts';
import type { Channel } from '../../src/transport/index.ts';
import { memoryPair } from './memory-channel.ts';
import { oneChannel, testSettings } from './move.ts';

/** Reads to the end and returns all bytes. */
export async function readAll(channel: Channel): Promise<Buffer> {
  const parts: Buffer[] = [];
  for (;;) {
    const chunk = await channel.read();
    if (chunk === null) return Buffer.concat(parts);
    parts.push(Buffer.from(chunk.bytes.subarray(chunk.start, chunk.end)));
  }
}

/** The stream of one migration without a return path. */
export async function recordStream(machine: SourceMachine, settings: SettingsView = testSettings()): Promise<Buffer> {
  const [ours, theirs] = memoryPair();
  const migration = new OutgoingMigration({
    machine,
    settings,
    connect: async () => ours,
    returnPath: () => false,
  });
  const [result, bytes] = await Promise.all([migration.run(), readAll(theirs)]);
  if (result.status !== 'completed') throw result.error;
  return bytes;
}

export interface Played {
  readonly result: IncomingResult;
  /** What the destination said on the return path. */
  readonly said: Buffer;
}

/** Plays a stream to a destination; the sender then ends its side, or with `hangUp: false` keeps it open until the destination closes. */
export async function play(
  machine: DestinationMachine,
  bytes: Uint8Array,
  options: { readonly settings?: SettingsView; readonly hangUp?: boolean; readonly takesAnyMachine?: boolean } = {},
): Promise<Played> {
  const [ours, theirs] = memoryPair();
  const migration = new IncomingMigration({
    machine,
    settings: options.settings ?? testSettings(),
    listener: oneChannel(async () => theirs),
    takesAnyMachine: options.takesAnyMachine ?? false,
  });
  const sent = (async () => {
    await ours.write(bytes);
    if (options.hangUp !== false) await ours.end();
  })().catch(() => {});
  const said = readAll(ours)
    .catch(() => Buffer.alloc(0))
    .finally(() => ours.end().catch(() => {}));
  const result = await migration.run();
  await sent;
  ours.destroy();
  return { result, said: await said };
}

/** A small machine that waits for a migration; disposed of with the test. */
export async function waitingMachine(
  t: { after(f: () => Promise<void>): void },
  ram = 4 * 1024 * 1024,
): Promise<WorkloadMachine> {
  const machine = await createWorkload({ ram, vcpus: 1, incoming: true });
  t.after(() => machine.dispose());
  return machine;
}
