import { QmpServer } from '../../control/index.ts';
import { createWorkload, type WorkloadOptions } from '../../machine/index.ts';
import { type Objects, VmHost } from '../../migration/index.ts';
import type { Outcome } from '../../porcelain/index.ts';
import type { Settings } from '../../settings/index.ts';
import { formatAddress } from '../../transport/index.ts';
import { type DeviceSpec, deviceMemoryOf, plugDevices } from '../../vfio/index.ts';
import { warnExposed } from '../warn-exposed.ts';
import { compatCommands } from './compat-commands.ts';
import { deviceCommands } from './device-commands.ts';
import { deviceDeadlines } from './device-deadlines.ts';
import { workloadCommands } from './workload-commands.ts';

export interface RunOptions {
  readonly machine: Omit<WorkloadOptions, 'incoming' | 'deviceMemory'>;
  readonly devices: readonly DeviceSpec[];
  readonly settings: Settings;
  readonly objects: Objects;
  /** Path of the QMP socket. */
  readonly qmp: string;
  /** A URI, or `defer`; undefined: the machine starts here. */
  readonly incoming: string | undefined;
  /** Leave a machine that starts here stopped. */
  readonly paused: boolean;
  /** Aborting it is a quit. */
  readonly signal: AbortSignal;
  /** The process can be talked to; `uri` is where a migration is awaited, with the real port. */
  readonly ready: (facts: { readonly qmp: string; readonly uri?: string }) => void;
}

/** A process with the embedded machine, from its start to quit, the end of its parent, or a failed arrival. */
export async function runMachine(options: RunOptions): Promise<Outcome> {
  const { incoming, qmp, settings, objects, signal, devices: specs } = options;
  const deviceMemory = deviceMemoryOf(specs);
  const workload = await createWorkload({ ...options.machine, incoming: incoming !== undefined, deviceMemory });
  const deadlines = deviceDeadlines(settings);
  const devices = await plugDevices(workload, specs, { deadlines }).catch(async (error: unknown) => {
    await workload.dispose();
    throw error;
  });
  const dispose = async () => {
    await devices.close();
    await workload.dispose();
  };
  let end: (outcome: Outcome) => void = () => {};
  const ended = new Promise<Outcome>((resolve) => {
    end = resolve;
  });
  const host = new VmHost({
    name: 'vmferry',
    machine: devices.machine,
    settings,
    objects,
    exposed: (address) => warnExposed(formatAddress(address)),
    quit: async () => end({ status: signal.aborted ? 'cancelled' : 'completed', message: '' }),
    arrived: ({ status, error }, exitOnError) => {
      if (status === 'failed' && exitOnError) end({ status, ...(error === undefined ? {} : { error }), message: '' });
    },
  });
  const server = await QmpServer.listen({
    host,
    address: { kind: 'unix', path: qmp },
    commands: [
      ...workloadCommands(() => ({ workload, devices })),
      ...deviceCommands(() => devices),
      ...compatCommands(() => workload.machineType),
    ],
  }).catch(async (error: unknown) => {
    await dispose();
    throw error;
  });
  const quit = () => void host.quit();
  try {
    if (incoming === undefined && !options.paused) await host.cont();
    if (incoming !== undefined && incoming !== 'defer') await host.migrateIncoming(incoming);
    signal.addEventListener('abort', quit);
    // Whoever forked this process with an IPC channel takes it along when it ends.
    process.once('disconnect', quit);
    if (signal.aborted) quit();
    const uri = host.listening && formatAddress(host.listening);
    options.ready({ qmp, ...(uri === undefined ? {} : { uri }) });
    return await ended;
  } finally {
    process.off('disconnect', quit);
    signal.removeEventListener('abort', quit);
    await server.close();
    await dispose();
  }
}
