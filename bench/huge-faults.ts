/** One postcopy between two vmferrys whose memory has host pages of a given size, and what the destination says of the wait for each. */
import { join } from 'node:path';
import { QmpClient } from '../src/qemu/index.ts';
import { aheadOf, type BlocktimeInfo, type FaultSample, latencies, SocketWatch } from './fault-figures.ts';
import { DESTINATION } from './own-network.ts';
import { migrated, VmferryProcess } from './processes.ts';

export interface HugeMove {
  /** As run --host-page and --ram take them. */
  readonly hostPage: string;
  readonly ram: string;
  readonly preempt: boolean;
}

const DEADLINE_MS = 120_000;
let serial = 0;

/** Two vCPUs write to pages at random as fast as they come. `folder`: for sockets. */
export async function hugeMove(folder: string, { hostPage, ram, preempt }: HugeMove): Promise<FaultSample> {
  const name = String(serial++);
  const [a, b] = [join(folder, `${name}-a`), join(folder, `${name}-b`)];
  const set = ['postcopy-ram=on', `postcopy-preempt=${preempt ? 'on' : 'off'}`].flatMap((one) => ['--set', one]);
  const machine = ['--ram', ram, '--host-page', hostPage, '--vcpus', '2'];
  const guest = ['--dirty-rate', 'max', '--pattern', 'uniform', '--fill', '1'];
  const from = new VmferryProcess(['run', '--qmp', a, ...machine, ...guest, ...set, '--set', 'max-bandwidth=1M']);
  const to = new VmferryProcess([
    ...['run', '--qmp', b, '--incoming', 'defer', '--prealloc', ...machine, ...guest, ...set],
    ...['--set', 'postcopy-blocktime=on'],
  ]);
  try {
    await Promise.all([from.line('ready'), to.line('ready')]);
    const [source, destination] = await Promise.all([QmpClient.connect(a), QmpClient.connect(b)]);
    await destination.execute('migrate-incoming', { uri: `tcp:${DESTINATION}:0` });
    const { 'socket-address': [at] = [] } = await destination.execute('query-migrate');
    if (at?.type !== 'inet') throw new Error('the destination does not listen');
    const sockets = new SocketWatch(Number(at.port), preempt ? 1 : 0);
    try {
      await source.execute('migrate', { uri: `tcp:${DESTINATION}:${at.port}` });
      await source.waitForMigration(['active'], { timeoutMs: DEADLINE_MS });
      await source.execute('migrate-start-postcopy');
      const { ms } = await migrated(source);
      await destination.waitForMigration(['completed'], { timeoutMs: DEADLINE_MS });
      const { ram: sent } = await source.execute('query-migrate');
      const told: BlocktimeInfo = await destination.execute('query-migrate');
      return { ...latencies(told), totalMs: ms, socketBytes: sockets.seen, ahead: aheadOf(sent) };
    } finally {
      sockets.stop();
      source.close();
      destination.close();
    }
  } finally {
    await Promise.all([from.stop(), to.stop()]);
  }
}
