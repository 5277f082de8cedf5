/** A host without a machine: notes what it is asked, and does what the test says. */
import { EventEmitter } from 'node:events';
import {
  type Host,
  type HostEvent,
  type HostStatus,
  type MigrationInfo,
  type MigrationThread,
  Objects,
} from '../../src/migration/index.ts';
import { Settings } from '../../src/settings/index.ts';

export class FakeHost implements Host {
  readonly name = 'fake';
  readonly settings = new Settings();
  readonly objects = new Objects();
  readonly asked: string[] = [];
  info: MigrationInfo = {};
  threads: readonly MigrationThread[] = [];
  /** Stands in for what `migrate`, `stop` and `quit` do. */
  onMigrate: () => Promise<void> = async () => {};
  onStop: () => Promise<void> = async () => {};
  onQuit: () => Promise<void> = async () => {};
  readonly #events = new EventEmitter<{ event: [HostEvent] }>();

  emit(event: HostEvent): void {
    this.#events.emit('event', event);
  }

  get listeners(): number {
    return this.#events.listenerCount('event');
  }

  status(): HostStatus {
    return { running: true, status: 'running' };
  }

  async stop(): Promise<void> {
    this.asked.push('stop');
    await this.onStop();
    this.emit({ event: 'STOP' });
  }

  async cont(): Promise<void> {
    this.asked.push('cont');
    this.emit({ event: 'RESUME' });
  }

  async migrate(uri: string, { resume = false } = {}): Promise<void> {
    this.asked.push(`migrate ${uri}${resume ? ' resume' : ''}`);
    await this.onMigrate();
  }

  async migrateIncoming(uri: string, { exitOnError = true } = {}): Promise<void> {
    this.asked.push(`migrateIncoming ${uri} exitOnError=${exitOnError}`);
  }

  async migrateCancel(): Promise<void> {
    this.asked.push('migrateCancel');
  }

  async migrateStartPostcopy(): Promise<void> {
    this.asked.push('migrateStartPostcopy');
  }

  async migrateRecover(uri: string): Promise<void> {
    this.asked.push(`migrateRecover ${uri}`);
  }

  async migratePause(): Promise<void> {
    this.asked.push('migratePause');
  }

  async migrateContinue(state: string): Promise<void> {
    this.asked.push(`migrateContinue ${state}`);
  }

  queryMigrate(): MigrationInfo {
    return this.info;
  }

  queryMigrationThreads(): readonly MigrationThread[] {
    return this.threads;
  }

  async quit(): Promise<void> {
    this.emit({ event: 'SHUTDOWN', data: { guest: false, reason: 'host-qmp-quit' } });
    await this.onQuit();
  }

  onEvent(listener: (event: HostEvent) => void): () => void {
    this.#events.on('event', listener);
    return () => this.#events.off('event', listener);
  }
}
