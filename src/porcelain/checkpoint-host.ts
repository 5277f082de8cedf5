import {
  type Host,
  type HostEvent,
  type HostStatus,
  type IncomingMigration,
  listenAt,
  type MigrationInfo,
  type MigrationStatus,
  type MigrationThread,
  type Objects,
  OutgoingMigration,
  routeTo,
  wrongState,
} from '../migration/index.ts';
import type { Settings } from '../settings/index.ts';
import { type Address, parseAddress } from '../transport/index.ts';

/** Serves QMP for a host; `close` ends that. The CLI gives it: this room knows no server. */
export type ServeHost = (host: Host) => Promise<{ close(): Promise<void> }>;

/**
 * A process that moves a checkpoint, as its manager sees it: one migration that began with the process and ends with it. The machine
 * does not run here, so what would run it is refused.
 */
export class CheckpointHost implements Host {
  readonly name = 'vmferry';
  readonly settings: Settings;
  readonly objects: Objects;
  readonly #migration: OutgoingMigration | IncomingMigration;
  #listening: Address | undefined;
  readonly #listeners = new Set<(event: HostEvent) => void>();

  /** `listening`: where the source of an incoming migration is awaited. */
  constructor(
    settings: Settings,
    objects: Objects,
    migration: OutgoingMigration | IncomingMigration,
    listening?: Address,
  ) {
    this.settings = settings;
    this.objects = objects;
    this.#migration = migration;
    this.#listening = listening;
  }

  status(): HostStatus {
    return { running: false, status: this.#migration instanceof OutgoingMigration ? 'paused' : 'inmigrate' };
  }

  async stop(): Promise<void> {}

  async cont(): Promise<void> {
    throw this.#refused('the machine is a checkpoint: it cannot run here');
  }

  async migrate(uri: string, { resume = false }: { readonly resume?: boolean } = {}): Promise<void> {
    if (!resume) throw this.#refused('this process does one migration, and that has begun already');
    const tls = this.objects.tls(this.settings, 'client');
    this.#outgoing().postcopy.resume(routeTo(parseAddress(uri), { tls, settings: this.settings }));
  }

  async migrateStartPostcopy(): Promise<void> {
    this.#outgoing().startPostcopy();
  }

  async migratePause(): Promise<void> {
    this.#migration.postcopy.pause();
  }

  async migrateRecover(uri: string): Promise<void> {
    if (this.#migration instanceof OutgoingMigration) {
      throw this.#refused('there is no incoming postcopy that could be recovered');
    }
    const tls = this.objects.tls(this.settings, 'server');
    const listener = await listenAt(parseAddress(uri), { tls, settings: this.settings });
    try {
      this.#migration.postcopy.recover(listener);
    } catch (error) {
      listener.close();
      throw error;
    }
    this.#listening = listener.address;
  }

  async migrateIncoming(): Promise<void> {
    throw this.#refused('this process does one migration, and that has begun already');
  }

  async migrateCancel(): Promise<void> {
    this.#migration.cancel();
  }

  async migrateContinue(state: MigrationStatus): Promise<void> {
    const now = this.#migration.status;
    if (now !== state || !(this.#migration instanceof OutgoingMigration)) {
      throw this.#refused(`the migration is in state ${now}, not ${state}`);
    }
    this.#migration.continue();
  }

  queryMigrate(): MigrationInfo {
    const info = this.#migration.info();
    const at = this.#listening;
    if (at?.kind === 'tcp') info['socket-address'] = [{ type: 'inet', host: at.host, port: String(at.port) }];
    if (at?.kind === 'unix') info['socket-address'] = [{ type: 'unix', path: at.path }];
    return info;
  }

  queryMigrationThreads(): MigrationThread[] {
    return this.#migration.threads.map(({ name, threadId }) => ({ name, 'thread-id': threadId }));
  }

  /** The migration is cancelled, which ends the process. */
  async quit(): Promise<void> {
    this.#emit({ event: 'SHUTDOWN', data: { guest: false, reason: 'host-qmp-quit' } });
    this.#migration.abandon();
  }

  onEvent(listener: (event: HostEvent) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** The migration has a new status: for its observer. */
  moved(status: MigrationStatus): void {
    if (this.settings.capability('events')) this.#emit({ event: 'MIGRATION', data: { status } });
  }

  #outgoing(): OutgoingMigration {
    if (this.#migration instanceof OutgoingMigration) return this.#migration;
    throw this.#refused('there is no outgoing migration under way');
  }

  #emit(event: HostEvent): void {
    for (const listener of this.#listeners) listener(event);
  }

  #refused(message: string) {
    return wrongState(this.#migration.status, message);
  }
}
