import type { Command } from 'commander';
import { explain, unreachable } from '../../base/index.ts';
import { DEVICE_MEMORY_ADDRESS } from '../../machine/index.ts';
import { DeviceServer, EmulatedVf, type ServerEvent, type VfOptions } from '../../vfio/index.ts';
import { type DeviceOption, deviceOption, oneDeviceOption, vfHelp } from '../device-option.ts';
import { examples, jsonOption, size } from '../options.ts';
import { perform } from '../perform.ts';
import { formatCount } from '../render/quantity.ts';
import type { Reporter } from '../reporter.ts';

interface DeviceServerFlags {
  readonly socket: string;
  readonly device: DeviceOption;
  readonly dmaAddress: number;
  readonly verify?: boolean;
  readonly json?: boolean;
}

export function addDeviceServer(program: Command): void {
  const command = program
    .command('device-server')
    .summary('an emulated VF for other processes, over vfio-user')
    .description(
      'Offers an emulated VF at a unix socket to any vfio-user client (QEMU 10.1 and later, vmferry), one after the other. The device keeps its ' +
        'state between clients and can be migrated. Guest memory is reached by messages; interrupts are not raised, as that takes descriptors.',
    )
    .requiredOption('--socket <path>', 'unix socket to listen at')
    .addOption(oneDeviceOption(['vf']).default(deviceOption('vf', ['vf']), 'vf'))
    .option(
      '--dma-address <address>',
      'guest address of the memory that the device writes to; by default that of `run` for its devices',
      size,
      DEVICE_MEMORY_ADDRESS,
    )
    .option('--verify', 'recompute the state of the device whenever it comes to rest, and say whether it is right')
    .addOption(jsonOption())
    .action((flags: DeviceServerFlags) => serve(flags));
  command.addHelpText('after', vfHelp());
  examples(command, [
    'device-server --socket vf.sock',
    'device-server --socket vf.sock --device vf,preset=vf-300m,state-rate=50M',
    'device-server --socket vf.sock --device vf,state-size=1G,precopy=off --verify --json',
  ]);
}

function serve({ socket, device, dmaAddress, verify = false, ...flags }: DeviceServerFlags): Promise<void> {
  return perform(flags, async ({ signal, reporter }) => {
    const vf = await EmulatedVf.open({ name: 'vf', options: optionsOf(device), dmaIova: dmaAddress });
    try {
      const check = () => verified(vf, reporter);
      const server = await DeviceServer.listen({
        socket,
        device: vf,
        tell: (event) => {
          tell(reporter, event);
          if (verify && event.kind === 'state' && event.to === 'STOP') void check();
        },
      });
      reporter.event('ready', { socket }, `listening at ${socket}`);
      const stop = () => void server.close();
      signal.addEventListener('abort', stop);
      if (signal.aborted) stop();
      const error = await server.ended;
      if (error !== undefined) throw error;
      return { outcome: { status: signal.aborted ? 'cancelled' : 'completed', message: '' } };
    } finally {
      await vf.close();
    }
  });
}

function optionsOf(device: DeviceOption): VfOptions {
  if (device.driver === 'vf') return device.options;
  throw new Error('vmferry bug: only a vf can be served');
}

function tell(reporter: Reporter, event: ServerEvent): void {
  switch (event.kind) {
    case 'client': {
      const { version, capabilities } = event;
      reporter.event('client', { version, capabilities }, `a client of version ${version}`);
      break;
    }
    case 'state': {
      const { from, to } = event;
      reporter.event('state', { from, to }, `${from} -> ${to}`);
      break;
    }
    case 'reset':
      reporter.event('reset', {}, 'reset');
      break;
    case 'gone': {
      const reason = explain(event.reason);
      reporter.event('gone', { reason }, `the client is gone: ${reason}`);
      break;
    }
    default:
      unreachable(event);
  }
}

/** Tells what the device is like now that it does nothing. */
async function verified(vf: EmulatedVf, reporter: Reporter): Promise<void> {
  try {
    const evidence = await vf.evidence();
    const { pagesBad, pagesChecked } = evidence.state;
    const text = pagesBad === 0 ? 'all' : `all but ${formatCount(pagesBad)}`;
    reporter.event('evidence', evidence, `${formatCount(pagesChecked)} pages of its state: ${text} right`);
  } catch (error) {
    reporter.event('evidence', { error: explain(error) }, `its state could not be verified: ${explain(error)}`);
  }
}
