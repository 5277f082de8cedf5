/** What benchmarks share: rounds, medians with their spread, CPU seconds and peak memory of processes, one table. */
import { readFileSync } from 'node:fs';
import { arch, cpus, release } from 'node:os';

export interface Sample {
  /** Bytes moved and the time it took, ms. */
  readonly bytes: number;
  readonly ms: number;
  /** CPU seconds of all processes that took part. */
  readonly cpuSeconds: number;
  /** Largest resident set of any of them beyond the guest's own memory, bytes; 0 if not measured. */
  readonly extraBytes: number;
}

export interface Contender {
  readonly name: string;
  /** One measured round. Sets up and clears away by itself; only what it returns is the measurement. */
  run(): Promise<Sample>;
}

export interface Row {
  readonly name: string;
  readonly gbPerSecond: Spread;
  readonly cpuSecondsPerGb: Spread;
  readonly extraMb: Spread;
}

export interface Spread {
  readonly median: number;
  readonly min: number;
  readonly max: number;
}

/** Every contender once a round, in turn, so that a slow minute of the machine hits all of them; the first round warms up. */
export async function compete(
  contenders: readonly Contender[],
  rounds: number,
  log: (line: string) => void,
): Promise<Row[]> {
  const samples = new Map<string, Sample[]>(contenders.map((one) => [one.name, []]));
  for (let round = 0; round <= rounds; round++) {
    for (const one of contenders) {
      const sample = await one.run();
      log(
        `${round === 0 ? 'warm-up' : `round ${round}`}: ${one.name}: ${(sample.bytes / sample.ms / 1e6).toFixed(2)} GB/s`,
      );
      if (round > 0) samples.get(one.name)!.push(sample);
    }
  }
  return contenders.map(({ name }) => {
    const all = samples.get(name)!;
    return {
      name,
      gbPerSecond: spread(all.map((s) => s.bytes / s.ms / 1e6)),
      cpuSecondsPerGb: spread(all.map((s) => s.cpuSeconds / (s.bytes / 1e9))),
      extraMb: spread(all.map((s) => s.extraBytes / 1e6)),
    };
  });
}

export function spread(values: readonly number[]): Spread {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = Math.floor(sorted.length / 2);
  const median = sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
  return { median, min: sorted[0]!, max: sorted.at(-1)! };
}

/** Markdown table: medians with the range seen, and the ratio of throughput to the row named `base`. */
export function table(rows: readonly Row[], base: string): string {
  const reference = rows.find((row) => row.name === base)?.gbPerSecond.median ?? Number.NaN;
  const cell = (s: Spread, digits: number) =>
    `${s.median.toFixed(digits)} (${s.min.toFixed(digits)} - ${s.max.toFixed(digits)})`;
  return [
    `| what | GB/s, median (range) | ratio to ${base} | CPU s/GB | peak memory above the guest's, MB |`,
    '| --- | --- | --- | --- | --- |',
    ...rows.map(
      (row) =>
        `| ${row.name} | ${cell(row.gbPerSecond, 2)} | ${(row.gbPerSecond.median / reference).toFixed(2)} | ` +
        `${cell(row.cpuSecondsPerGb, 2)} | ${row.extraMb.max > 0 ? cell(row.extraMb, 0) : '-'} |`,
    ),
  ].join('\n');
}

/** User and system time of a process so far, seconds (Linux: fields 14 and 15 of /proc/PID/stat, in ticks of 10 ms). */
export function cpuSeconds(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return (Number(fields[11]) + Number(fields[12])) / 100;
}

/** Largest resident set a process has had, bytes. */
export function peakResident(pid: number): number {
  const status = readFileSync(`/proc/${pid}/status`, 'latin1');
  return Number(/VmHWM:\s+(\d+) kB/.exec(status)?.[1] ?? 0) * 1024;
}

export function machineLine(): string {
  const cpu = cpus();
  return `${cpu.length} cores (${cpu[0]?.model.trim() ?? arch()}), Linux ${release()}, Node.js ${process.version}`;
}
