/** Whether what came of a cell is as it must be: it migrates, or it fails at once with words that name the difference. */
import { WAIT_MS } from './ends.ts';
import { type Cell, cellName, type EndReport, type Outcome, type Played } from './model.ts';

/** A cell may take so much longer than a plain move between the same ends, on a quiet machine, ms. */
const AT_ONCE_MS = 5_000;
/** On a busy one everything takes longer, a plain move too. */
const TIMES_PLAIN = 10;

/** Differences that neither end can see, and what happens then. */
const UNSEEN: Readonly<Record<string, string>> = {
  'QEMU 11.1 -> vmferry: x-colo at the source only':
    'QEMU 11.1 sends with x-colo what it sends without, and then waits for a replica to answer: vmferry has the machine, the source stands until ' +
    'x-colo-lost-heartbeat, with which its guest goes on there as well',
};

export interface Verdict {
  readonly outcome: Exclude<Outcome, 'skip'>;
  readonly words: string;
}

/** A migration that completes may take its time; one that is refused must be so at once, or right after a declared wait. */
export function isAtOnce({ ends, ms }: Played, plainMs: number): boolean {
  return ends.every(({ completed }) => completed) || ms <= boundMs(ends, plainMs);
}

function boundMs(ends: readonly EndReport[], plainMs: number): number {
  return Math.max(AT_ONCE_MS, TIMES_PLAIN * plainMs) + (ends.some(isLate) ? WAIT_MS : 0);
}

/** `plainMs`: of a plain move between such ends, in the same run. */
export function judge(cell: Cell, played: Played, plainMs: number): Verdict {
  const { row } = cell;
  const { ends, ms, notTaken } = played;
  const unseen = UNSEEN[cellName(cell)];
  if (unseen !== undefined) return { outcome: 'unseen', words: unseen };
  if (notTaken !== undefined) return { outcome: 'not taken', words: notTaken };
  const told = ends.map(({ who, side, words }) => `${who} (${side}): ${words}`).join('\n');
  if (!isAtOnce(played, plainMs)) {
    const most = Math.round(boundMs(ends, plainMs));
    return { outcome: 'fail', words: `not at once: ${Math.round(ms)} ms of ${most}\n${told}` };
  }
  if (ends.every(({ completed }) => completed)) {
    const settled = ends.flatMap((end) => end.settled ?? []);
    return settled.length === 0
      ? { outcome: 'migrates', words: '' }
      : { outcome: 'settled', words: [...new Set(settled)].join('; ') };
  }
  if (ends.some(({ completed }) => completed)) return { outcome: 'fail', words: `the ends disagree\n${told}` };
  if (row.harmless) return { outcome: 'fail', words: `it does no harm, and yet\n${told}` };
  const namedBy =
    ends.find(({ who, words }) => who === 'vmferry' && row.named.test(words)) ?? ownRefusal(ends, row.named);
  if (namedBy === undefined) return { outcome: 'fail', words: `not named\n${told}` };
  return {
    outcome: ends.some(isLate) ? 'refused late' : 'refused',
    words: `${namedBy.who} (${namedBy.side}): ${namedBy.words}`,
  };
}

/** A QEMU that refuses its own command before anybody else is there needs nobody to say it for it. */
function ownRefusal(ends: readonly EndReport[], named: RegExp): EndReport | undefined {
  return ends.length === 1 && named.test(ends[0]!.words) ? ends[0] : undefined;
}

/** A declared wait has ended it: `within` says so. */
function isLate({ words }: EndReport): boolean {
  return /waited \d+ ms for/.test(words);
}
