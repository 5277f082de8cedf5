/**
 * What the embedded machine costs and reaches: operations (one dirtied page each), the paced dirty rate, a harvest of the dirty log,
 * filling and verifying memory. One vCPU's loop where nothing else is said.
 *
 *   node .build/.../bench/micro/workload.js [MiB of RAM]
 */
import { newBitmap } from '../../src/base/index.ts';
import { createWorkload, PATTERNS } from '../../src/machine/index.ts';
import { harvest, markDirty } from '../../src/machine/workload/dirty-log.ts';
import { chunksOf, layoutOf } from '../../src/machine/workload/layout.ts';
import { fillOwnPages, runOperations } from '../../src/machine/workload/operations.ts';
import { programOf } from '../../src/machine/workload/program.ts';
import { PageVerifier } from '../../src/machine/workload/verify-pages.ts';

const REPEATS = 5;

/** Best of a few runs: what the loop can do when nothing else has the core. */
function bestMs(run: () => void): number {
  let best = Number.POSITIVE_INFINITY;
  for (let i = 0; i < REPEATS; i++) {
    const start = performance.now();
    run();
    best = Math.min(best, performance.now() - start);
  }
  return best;
}

function line(label: string, value: number, unit: string): void {
  console.log(`${label.padEnd(40)} ${value.toFixed(3).padStart(9)} ${unit}`);
}

export function loopRates(mebibytes: number): void {
  const layout = layoutOf(mebibytes * 1024 * 1024);
  const [ram] = layout.blocks;
  const memory = layout.blocks.map(({ usedLength }) => new SharedArrayBuffer(usedLength));
  const chunks = chunksOf(layout, memory);
  const log = new Int32Array(new SharedArrayBuffer(layout.flatPageCount / 8));
  const programs = PATTERNS.map((pattern) => programOf({ seed: 1, pattern, fillPpm: 750_000 }, layout, 0, 1));

  line(
    'fill memory, 75 % of the pages',
    ram.usedLength / 1e6 / bestMs(() => fillOwnPages(programs[0]!, chunks)),
    'GB/s',
  );
  const checked = () => new PageVerifier(layout, chunks).vcpu(programs[0]!, 0, 0);
  line('verify memory', ram.usedLength / 1e6 / bestMs(checked), 'GB/s');

  const count = ram.pageCount;
  for (const program of programs) {
    if (program.pattern === 'idle') continue;
    for (const logged of [undefined, log]) {
      const ms = bestMs(() => runOperations(program, chunks, logged, 0, count, 0));
      line(`operations, ${program.pattern}${logged ? ', logged' : ''}`, count / 1e3 / ms, 'M/s');
    }
  }

  const into = newBitmap(ram.pageCount);
  const perGib = 1024 / mebibytes;
  log.fill(0);
  line('harvest, nothing dirty', bestMs(() => harvest(log, ram, into)) * perGib, 'ms/GiB');
  let dirtyMs = Number.POSITIVE_INFINITY;
  for (let i = 0; i < REPEATS; i++) {
    for (let page = 0; page < ram.pageCount; page++) markDirty(log, page);
    into.fill(0);
    const start = performance.now();
    harvest(log, ram, into);
    dirtyMs = Math.min(dirtyMs, performance.now() - start);
  }
  line('harvest, all dirty', dirtyMs * perGib, 'ms/GiB');
}

/** Dirty rates of a real machine of two vCPUs over `ms` milliseconds each. */
export async function machineRates(mebibytes: number, ms: number): Promise<void> {
  for (const dirtyRate of [100e6, 300e6, 1000e6, 'max'] as const) {
    const machine = await createWorkload({ ram: mebibytes * 1024 * 1024, vcpus: 2, dirtyRate });
    try {
      await machine.resume();
      await machine.dirtyLog?.start();
      const before = machine.statistics.operations;
      const start = performance.now();
      await new Promise((resolve) => setTimeout(resolve, ms));
      const pages = machine.statistics.operations - before;
      const seconds = (performance.now() - start) / 1000;
      const asked = dirtyRate === 'max' ? 'max' : `${dirtyRate / 1e6}`;
      line(`dirty rate, 2 vCPUs, asked ${asked}`, (pages * 4096) / 1e6 / seconds, 'MB/s');
      const stopping = performance.now();
      await machine.stop('paused');
      line('  stop takes', performance.now() - stopping, 'ms');
      const verifying = performance.now();
      await machine.verify();
      line('  verify takes, threads included', performance.now() - verifying, 'ms');
    } finally {
      await machine.dispose();
    }
  }
}

if (process.argv[1]?.endsWith('workload.js')) {
  const mebibytes = Number(process.argv[2] ?? 256);
  loopRates(mebibytes);
  await machineRates(mebibytes, 2000);
}
