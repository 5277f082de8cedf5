/**
 * Reads what the Linux guest says (scripts/peers/linux-guest-init.sh). The consoles of all processes it has lived in are one text: a line
 * that began on one side ends on the next.
 */
export interface Ticks {
  /** Rounds done by each worker, all of them good. */
  readonly rounds: readonly number[];
  /** Uptime of the last tick, seconds by the guest's clock. */
  readonly uptime: number;
}

/** Throws on a tick that is CORRUPT, missing or out of order, on a device that stopped working, and on words of a dying kernel. */
export function readTicks(consoles: readonly string[]): Ticks {
  const text = consoles.join('');
  const workers = Number(/FILLED mb=\d+ workers=(\d+)/.exec(text)?.[1] ?? 0);
  const rounds: number[] = Array(workers).fill(0);
  let uptime = 0;
  let devices = '';
  const lines = text.split(/\r?\n/);
  lines.pop(); // still being written
  for (const line of lines) {
    if (/Kernel panic|BUG:|Oops|soft lockup|I\/O error/.test(line)) throw new Error(`guest kernel: ${line}`);
    const tick = /^TICK (\d+) (\d+) (OK|CORRUPT) (.*)$/.exec(line);
    if (tick === null) continue;
    const [, worker = '', round = '', verdict, rest = ''] = tick;
    if (verdict === 'CORRUPT') throw new Error(`guest found its state corrupt: ${line}`);
    const expected = rounds[Number(worker)];
    if (expected !== Number(round)) throw new Error(`ticks are broken: round ${expected} expected, got: ${line}`);
    rounds[Number(worker)] = expected + 1;
    uptime = Number.parseFloat(rest);
    if (worker !== '0') continue;
    const now = rest.slice(rest.indexOf(' ') + 1);
    if (devices !== '' && now !== devices) throw new Error(`a device changed from ${devices} to ${now}: ${line}`);
    devices = now;
  }
  return { rounds, uptime };
}

/** True once every worker has done `count` more rounds than `since`. For waiting: `since` of an unborn guest is an empty list. */
export function ticked(ticks: Ticks, since: readonly number[], count: number): boolean {
  return ticks.rounds.length > 0 && ticks.rounds.every((done, worker) => done >= (since[worker] ?? 0) + count);
}
