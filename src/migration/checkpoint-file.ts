/**
 * migrate and migrate-incoming with mapped-ram on and a file: address. The file is a machine of its own (machine/checkpoint), so a second
 * migration runs beside the process's own one: its machine on one end, the checkpoint on the other, a private socket between.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { CheckpointReader, CheckpointWriter } from '../machine/index.ts';
import type { SettingsView } from '../settings/index.ts';
import { type Address, type Channel, connect, listen } from '../transport/index.ts';
import type { SourceListener } from './destination/arrivals.ts';
import { IncomingMigration, type IncomingResult } from './destination/incoming.ts';
import { unsupported } from './errors.ts';
import { OutgoingMigration } from './source/outgoing.ts';

type FileAddress = Extract<Address, { kind: 'file' }>;

/** Settings of the inner stream: it is plain, whatever the file's format. */
export function innerSettings(settings: SettingsView): SettingsView {
  return {
    capability: (name) => name !== 'mapped-ram' && settings.capability(name),
    parameter: (name) => settings.parameter(name),
  };
}

/** Throws MIGRATION_UNSUPPORTED unless `address` is a file: mapped-ram has no other. */
export function requireFile(address: Address): asserts address is FileAddress {
  if (address.kind !== 'file') throw unsupported(`mapped-ram over ${address.kind}: (it needs file:PATH)`);
}

/** A checkpoint as the destination of a source in this process: complete when the source is. */
export class CheckpointSide {
  readonly #address: FileAddress;
  readonly #settings: SettingsView;
  #result: Promise<IncomingResult> | undefined;

  /** Throws MIGRATION_UNSUPPORTED for an offset. */
  constructor(address: FileAddress, settings: SettingsView) {
    if (address.offset !== 0) throw unsupported('writing mapped-ram at an offset of a file');
    this.#address = address;
    this.#settings = settings;
  }

  connect(signal: AbortSignal): Promise<Channel> {
    return joined(signal, (channel) => {
      const machine = new CheckpointWriter(this.#address.path);
      const listener = onlyOne(async () => channel);
      this.#result = new IncomingMigration({
        machine,
        settings: this.#settings,
        listener,
        takesAnyMachine: true,
      }).run();
    });
  }

  /** Why the checkpoint could not be written; undefined if it could. */
  async failure(): Promise<Error | undefined> {
    return (await this.#result)?.error;
  }
}

/** A destination's listener where the only source is the checkpoint at `address`. */
export function listenToCheckpoint(address: FileAddress, settings: SettingsView): SourceListener {
  return onlyOne((signal) => channelFromCheckpoint(address, settings, signal));
}

async function channelFromCheckpoint(
  address: FileAddress,
  settings: SettingsView,
  signal: AbortSignal,
): Promise<Channel> {
  const machine = await CheckpointReader.open(address.path, { offset: address.offset });
  return await joined(signal, (channel) => {
    const connect = async () => channel;
    const sent = new OutgoingMigration({ machine, settings, connect, returnPath: () => true }).run();
    void sent.then(() => machine.close());
  });
}

/** Two ends of a private socket: `start` gets one, the caller the other. */
async function joined(signal: AbortSignal, start: (channel: Channel) => void): Promise<Channel> {
  const folder = await mkdtemp(join(tmpdir(), 'vmferry-'));
  try {
    const listener = await listen({ kind: 'unix', path: join(folder, 'inner.sock') }, { signal, role: 'checkpoint' });
    try {
      const accepted = listener.accept(signal);
      const ours = await connect(listener.address, { signal });
      const theirs = await accepted;
      start(theirs);
      return ours;
    } finally {
      listener.close();
    }
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

function onlyOne(accept: (signal: AbortSignal) => Promise<Channel>): SourceListener {
  return {
    accept: (signal = new AbortController().signal) => accept(signal),
    next: async () => {
      throw unsupported('multifd over a single connection');
    },
    close: () => {},
  };
}
