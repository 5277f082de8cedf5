import type { Command } from 'commander';
import { DEVICE_DOWNTIME_LIMIT_MS, type DeviceMoveResult, moveDevice, openUserDevice } from '../../vfio/index.ts';
import { examples, jsonOption, positive } from '../options.ts';
import { perform } from '../perform.ts';
import { formatBytes, formatCount, formatDuration } from '../render/quantity.ts';
import { pairs } from '../render/table.ts';

interface DeviceMoveFlags {
  readonly precopy: boolean;
  readonly downtimeLimit: number;
  readonly json?: boolean;
}

export function addDeviceMove(program: Command): void {
  const command = program
    .command('device-move')
    .summary('the state of a device from one vfio-user server into another')
    .description(
      'Moves the state of a running device between two vfio-user servers, vmferry or not, as a migration does: what can be read while it runs, then ' +
        'the rest. The destination runs afterwards and the source stands; after a failure it is the other way round. No machine is moved.',
    )
    .argument('<source>', 'unix socket of the server that has the device')
    .argument('<destination>', 'unix socket of a server with a device of the same kind')
    .option('--no-precopy', 'read nothing before the device is stopped')
    .option(
      '--downtime-limit <ms>',
      'time that neither runs, as far as it can be known',
      positive,
      DEVICE_DOWNTIME_LIMIT_MS,
    )
    .addOption(jsonOption())
    .action((source: string, destination: string, flags: DeviceMoveFlags) => move(source, destination, flags));
  examples(command, ['device-move a.sock b.sock', 'device-move a.sock b.sock --no-precopy --json']);
}

function move(from: string, to: string, flags: DeviceMoveFlags): Promise<void> {
  return perform(flags, async ({ signal, reporter }) => {
    const source = await openUserDevice({ socket: from, name: 'source', signal });
    const destination = await openUserDevice({ socket: to, name: 'destination', signal }).catch(async (error) => {
      await source.close();
      throw error;
    });
    try {
      const result = await moveDevice(source, destination, {
        preCopy: flags.precopy,
        downtimeLimitMs: flags.downtimeLimit,
        signal,
        tell: (event) => {
          if (event.kind === 'stopped') reporter.event('stopped', {}, 'stopped');
          else reporter.event('round', event, `round ${event.round}: ${formatBytes(event.bytes)}`);
        },
      });
      return {
        outcome: { status: 'completed', message: '' },
        facts: result,
        text: `completed\n${pairs(rowsOf(result))}The device runs at ${to}.\n`,
      };
    } finally {
      await Promise.all([source.close(), destination.close()]);
    }
  });
}

function rowsOf({ totalMs, downtimeMs, rounds, preCopyBytes, stopCopyBytes }: DeviceMoveResult): [string, string][] {
  return [
    ['total time', formatDuration(totalMs)],
    ['downtime', formatDuration(downtimeMs)],
    ['rounds', formatCount(rounds)],
    ['read while it ran', formatBytes(preCopyBytes)],
    ['read when it stood', formatBytes(stopCopyBytes)],
  ];
}
