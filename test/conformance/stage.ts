import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { FIRST_EXTRA_FD, findPeer, QemuProcess } from '../../src/qemu/index.ts';
import { bootProgram } from '../support/guests/boot-sector.ts';
import { bootGuest, type Guest, linuxGuest } from '../support/guests/guest.ts';
import { TlsFolders } from '../support/tls-folders.ts';
import { VmferryCommand } from '../support/vmferry-cli.ts';
import type { Cell, Scenario, TlsSetup } from './model.ts';

/** MiB the Linux guest works on: a round a second on a busy machine. */
const LINUX_WORK_MB = 12;
const BOOT_PAGES = 16_384;

/** What a cell is played with: a folder, a guest, QEMU processes and vmferry commands, and that all of it ends. */
export class Stage {
  readonly cell: Cell;
  readonly guest: Guest;
  readonly folder: string;
  readonly #qemus: QemuProcess[] = [];
  readonly #commands: VmferryCommand[] = [];
  #objects: ReturnType<TlsSetup> | undefined;
  #ended = false;

  private constructor(cell: Cell, folder: string) {
    this.cell = cell;
    this.folder = folder;
    this.guest =
      cell.guest === 'boot'
        ? bootGuest(
            bootProgram({
              pageCount: BOOT_PAGES,
              order: 'random',
              rests: cell.scenario.restless !== true,
              sleeps: cell.scenario.suspended === true,
            }),
          )
        : linuxGuest({ ...cell.guest, workMb: LINUX_WORK_MB });
  }

  static async open(cell: Cell): Promise<Stage> {
    return new Stage(cell, await mkdtemp(join(tmpdir(), 'vmferry-cell-')));
  }

  path(name: string): string {
    return join(this.folder, name);
  }

  /** What the scenario declares on each side. */
  get objects(): ReturnType<TlsSetup> {
    this.#objects ??= this.cell.scenario.tls?.(new TlsFolders(this.path('tls'))) ?? { source: [], destination: [] };
    return this.#objects;
  }

  /** The process in which the guest begins, at its work. */
  async startSource(): Promise<QemuProcess> {
    const qemu = await this.#start('a', []);
    await this.guest.ready(qemu);
    if (this.cell.scenario.stopped === true) await qemu.qmp.execute('stop');
    return qemu;
  }

  /** A process that waits for the guest: for `migrate-incoming`, or on its socket (`fd:`). */
  startDestination(waitsFor: 'defer' | 'socket' = 'defer'): Promise<QemuProcess> {
    return this.#start('b', ['-incoming', waitsFor === 'defer' ? 'defer' : `fd:${FIRST_EXTRA_FD}`]);
  }

  async #start(side: 'a' | 'b', args: readonly string[]): Promise<QemuProcess> {
    const { scenario, pair, machine } = this.cell;
    const peer = await findPeer(pair[side]);
    if (peer === undefined) throw new Error(`no QEMU ${pair[side]} here`);
    const qemu = await QemuProcess.start({
      peer,
      label: `${side}-${peer.name}`,
      extraSockets: 1,
      args: async (folder) => [
        ...['-nodefaults', '-accel', 'tcg', '-m', this.guest.memory],
        ...machineArgs(machine, scenario, this.path('ram')),
        ...(scenario.uuid?.[side] === undefined ? [] : ['-uuid', scenario.uuid[side]]),
        ...(await this.guest.args(folder, this.folder)),
        ...args,
      ],
    });
    this.#qemus.push(qemu);
    if (this.#ended) await qemu.stop();
    // Without it MIGRATION events do not come, and everybody waits for the next look.
    await qemu.qmp.execute('migrate-set-capabilities', { capabilities: [{ capability: 'events', state: true }] });
    const { source, destination } = this.objects;
    for (const one of side === 'a' ? source : destination) await qemu.qmp.execute('object-add', one);
    return qemu;
  }

  vmferry(args: readonly string[], options: { withSocket?: boolean } = {}): VmferryCommand {
    const command = new VmferryCommand(args, options);
    this.#commands.push(command);
    return command;
  }

  /** Ends everything that was started here. Idempotent, never throws. */
  async end(): Promise<void> {
    this.#ended = true;
    for (const command of this.#commands) {
      command.kill('SIGCONT');
      command.kill('SIGKILL');
      command.socket?.destroy();
    }
    for (const qemu of this.#qemus) qemu.kill('SIGCONT');
    await Promise.all([...this.#commands.map(({ ended }) => ended), ...this.#qemus.map((qemu) => qemu.stop())]);
    await rm(this.folder, { recursive: true, force: true });
  }
}

function machineArgs(machine: string, { sharedRam }: Scenario, ramPath: string): string[] {
  if (sharedRam !== true) return ['-machine', machine];
  const backend = `memory-backend-file,id=pc.ram,size=128M,mem-path=${ramPath},share=on`;
  return ['-machine', `${machine},memory-backend=pc.ram`, '-object', backend];
}
