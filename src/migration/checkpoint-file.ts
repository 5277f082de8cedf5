/**
 * migrate and migrate-incoming with mapped-ram on and a file: address. The file is a machine of its own (machine/checkpoint), so a second
 * migration runs beside the process's own one: its machine on one end, the checkpoint on the other, a private socket between. With multifd the
 * socket carries everything but pages: threads copy them between both machines' RAM.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { FerryError } from '../base/index.ts';
import type { ChannelInfo } from '../dataplane/index.ts';
import { CheckpointReader, CheckpointWriter, type SharedRam } from '../machine/index.ts';
import { type SettingsView, withChanges } from '../settings/index.ts';
import { type Address, type Channel, connect, listen } from '../transport/index.ts';
import type { SourceListener } from './destination/arrivals.ts';
import { IncomingMigration, type IncomingOptions, type IncomingResult } from './destination/incoming.ts';
import { unsupported } from './errors.ts';
import { OutgoingMigration, type OutgoingResult } from './source/outgoing.ts';

type FileAddress = Extract<Address, { kind: 'file' }>;

/** Settings of the inner stream: it is plain, whatever the file's format, and both its ends are this process. */
export function innerSettings(settings: SettingsView): SettingsView {
  if (!settings.capability('mapped-ram')) return settings;
  return withChanges(settings, { capabilities: { 'mapped-ram': false, 'x-vmferry-handshake': false } });
}

/** Throws MIGRATION_UNSUPPORTED unless `address` is a file: mapped-ram has no other. */
export function requireFile(address: Address): asserts address is FileAddress {
  if (address.kind !== 'file') throw unsupported(`mapped-ram over ${address.kind}: (it needs file:PATH)`);
}

/** A checkpoint as the destination of a source in this process: complete when the source is. */
export class CheckpointSide {
  readonly #address: FileAddress;
  readonly #settings: SettingsView;
  readonly #ram = new Promised<SharedRam>();
  #result: Promise<IncomingResult> | undefined;

  /** Throws MIGRATION_UNSUPPORTED for an offset. */
  constructor(address: FileAddress, settings: SettingsView) {
    if (address.offset !== 0) throw unsupported('writing mapped-ram at an offset of a file');
    this.#address = address;
    this.#settings = settings;
  }

  connect(signal: AbortSignal): Promise<Channel> {
    return joined(signal, (channel) => {
      const settings = this.#settings;
      const machine = new CheckpointWriter(this.#address.path, { directIo: settings.parameter('direct-io') });
      const incoming = new IncomingMigration({
        machine,
        settings: overOneChannel(settings),
        listener: onlyOne(async () => channel),
        takesAnyMachine: true,
        ...sharing(settings, this.#ram),
      });
      this.#result = incoming.run();
      void this.#result.then(({ error }) => this.#ram.reject(error));
    });
  }

  /** With multifd: the file's place for RAM, once it is laid out. */
  get ram(): Promise<SharedRam> {
    return this.#ram.promise;
  }

  /** Why the checkpoint could not be written; undefined if it could, or if it only saw the source fail. */
  async failure(): Promise<Error | undefined> {
    return cause((await this.#result)?.error);
  }
}

/** A checkpoint as the source of a destination in this process. */
export class CheckpointSource {
  readonly #address: FileAddress;
  readonly #settings: SettingsView;
  readonly #ram = new Promised<SharedRam>();
  #outgoing: OutgoingMigration | undefined;
  #result: Promise<OutgoingResult> | undefined;

  constructor(address: FileAddress, settings: SettingsView) {
    this.#address = address;
    this.#settings = settings;
  }

  /** What the destination is to be made with; nothing of the file is read before it asks for its source. */
  get options(): Pick<IncomingOptions, 'listener' | 'settings' | 'prepared' | 'farFailure'> {
    return {
      listener: onlyOne((signal) => this.#connect(signal)),
      settings: overOneChannel(this.#settings),
      ...sharing(this.#settings, this.#ram),
      farFailure: async () => {
        const result = await this.#result;
        return result === undefined || result.status === 'completed' ? undefined : cause(result.error);
      },
    };
  }

  /** Those that read the file. */
  get threads(): readonly ChannelInfo[] {
    return this.#outgoing?.threads ?? [];
  }

  async #connect(signal: AbortSignal): Promise<Channel> {
    const { path, offset } = this.#address;
    const directIo = this.#settings.parameter('direct-io');
    const machine = await CheckpointReader.open(path, { offset, directIo });
    return await joined(signal, (channel) => {
      this.#outgoing = new OutgoingMigration({
        machine,
        settings: this.#settings,
        connect: async () => channel,
        copyTo: () => this.#ram.promise,
        returnPath: () => true,
      });
      this.#result = this.#outgoing.run();
      void this.#result.then(() => machine.close());
    });
  }
}

/** With multifd pages do not go over the private socket: threads copy them. */
function overOneChannel(settings: SettingsView): SettingsView {
  return withChanges(settings, { capabilities: { multifd: false } });
}

/** Gives the destination's RAM away as soon as there is any. */
function sharing(settings: SettingsView, ram: Promised<SharedRam>): Pick<IncomingOptions, 'prepared'> {
  if (!settings.capability('multifd')) return {};
  return { prepared: (prepared) => ram.resolve(prepared.share()) };
}

class Promised<T> {
  resolve!: (value: T) => void;
  reject!: (reason: unknown) => void;
  readonly promise = new Promise<T>((resolve, reject) => {
    this.resolve = resolve;
    this.reject = reject;
  });

  constructor() {
    // Who waits for it hears of it; without multifd nobody does.
    this.promise.catch(() => {});
  }
}

/** Undefined if that side merely saw the other one end. */
function cause(error: Error | undefined): Error | undefined {
  const follows =
    error instanceof FerryError &&
    /^(TRANSPORT_|WIRE_TRUNCATED|MIGRATION_PEER_|MIGRATION_LEFT_EARLY|MIGRATION_CANCELLED)/.test(error.code);
  return follows ? undefined : error;
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
    single: true,
    close: () => {},
  };
}
