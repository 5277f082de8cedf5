/** QEMUs with the boot program for one test, a folder for their files, and that all of it ends. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { CheckpointWriter } from '../../src/machine/index.ts';
import { IncomingMigration } from '../../src/migration/index.ts';
import { type QemuPeer, QemuProcess } from '../../src/qemu/index.ts';
import { type Address, formatAddress, listen, parseAddress } from '../../src/transport/index.ts';
import { bootProgram } from './guests/boot-sector.ts';
import { bootGuest, type Guest } from './guests/guest.ts';
import { testSettings } from './move.ts';

export interface LabProcess {
  readonly machine: string;
  /** Waits for migrate-incoming. */
  readonly incoming?: boolean;
  readonly args?: readonly string[];
}

export class QemuLab {
  readonly folder: string;
  readonly guest: Guest;
  readonly #processes: QemuProcess[] = [];

  private constructor(folder: string, guest: Guest) {
    this.folder = folder;
    this.guest = guest;
  }

  /** `pageCount`: pages the guest works on, in random order. */
  static async open(t: { after(f: () => Promise<void>): void }, { pageCount = 16_384 } = {}): Promise<QemuLab> {
    const lab = await QemuLab.with(bootGuest(bootProgram({ order: 'random', pageCount, spin: 100 })));
    t.after(() => lab.close());
    return lab;
  }

  /** One that the caller closes. */
  static async with(guest: Guest): Promise<QemuLab> {
    return new QemuLab(await mkdtemp(join(tmpdir(), 'vmferry-lab-')), guest);
  }

  path(name: string): string {
    return join(this.folder, name);
  }

  /** A QEMU at its work, or one that waits. */
  async start(peer: QemuPeer, { machine, incoming = false, args = [] }: LabProcess): Promise<QemuProcess> {
    const qemu = await QemuProcess.start({
      peer,
      label: `${incoming ? 'b' : 'a'}-${peer.name}`,
      args: async (own) => [
        ...['-nodefaults', '-machine', machine, '-accel', 'tcg', '-m', this.guest.memory],
        ...(await this.guest.args(own, this.folder)),
        ...(incoming ? ['-incoming', 'defer'] : []),
        ...args,
      ],
    });
    this.#processes.push(qemu);
    if (!incoming) await this.guest.ready(qemu);
    return qemu;
  }

  /** The guest of `qemu`, which runs, into a checkpoint; it stays stopped there. */
  async save(qemu: QemuProcess, name: string): Promise<string> {
    const file = this.path(name);
    const listener = await listen(parseAddress('tcp:127.0.0.1:0'));
    const incoming = new IncomingMigration({
      machine: new CheckpointWriter(file),
      settings: testSettings(),
      takesAnyMachine: true,
      listener,
    });
    const run = incoming.run();
    await capabilities(qemu, 'return-path');
    await qemu.qmp.execute('migrate-set-parameters', { 'max-bandwidth': 0, 'downtime-limit': 30_000 });
    await qemu.qmp.execute('migrate', { uri: formatAddress(listener.address) });
    const result = await run;
    listener.close();
    if (result.error !== undefined) throw result.error;
    await qemu.qmp.waitForMigration(['completed']);
    return file;
  }

  async close(): Promise<void> {
    await Promise.all(this.#processes.map((qemu) => qemu.stop()));
    await rm(this.folder, { recursive: true, force: true });
  }
}

export async function capabilities(qemu: QemuProcess, ...names: readonly string[]): Promise<void> {
  const list = names.map((capability) => ({ capability, state: true }));
  await qemu.qmp.execute('migrate-set-capabilities', { capabilities: list });
}

/** Where a QEMU listens on loopback, once `command` (migrate-incoming, migrate-recover) has made it. */
export async function listening(
  qemu: QemuProcess,
  command: 'migrate-incoming' | 'migrate-recover' = 'migrate-incoming',
): Promise<Address & { kind: 'tcp' }> {
  await qemu.qmp.execute(command, { uri: 'tcp:127.0.0.1:0' });
  const { 'socket-address': addresses } = await qemu.qmp.execute('query-migrate');
  const inet = addresses?.at(-1);
  if (inet?.type !== 'inet') throw new Error(`${qemu.label} does not listen: ${JSON.stringify(addresses)}`);
  return { kind: 'tcp', host: '127.0.0.1', port: Number(inet.port) };
}
