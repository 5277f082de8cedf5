import type { EndFacts } from './facts.ts';
import type { Settlement } from './settle.ts';

/** `fail`: the migration would not end well. `warn`: it may, or the guest may notice. */
export type Verdict = 'pass' | 'warn' | 'fail';

export interface Judgement {
  readonly verdict: Verdict;
  /** For people; names the device, block or setting. */
  readonly reason: string;
}

export interface Finding extends Judgement {
  /** Name of the rule. */
  readonly rule: string;
}

/** From the facts of both ends, with what is settled, to judgements; none if the rule has nothing to say about them. Pure. */
export interface Rule {
  readonly name: string;
  readonly doc: string;
  readonly judge: (source: EndFacts, destination: EndFacts, settled: readonly Settlement[]) => readonly Judgement[];
}

export const pass = (reason: string): Judgement => ({ verdict: 'pass', reason });
export const warn = (reason: string): Judgement => ({ verdict: 'warn', reason });
export const fail = (reason: string): Judgement => ({ verdict: 'fail', reason });

/** A rule about one fact: says nothing if neither end tells it, and that it cannot tell if one does not. */
export function about<T>(
  pick: (facts: EndFacts) => T | undefined,
  judge: (source: T, destination: T, ends: { source: EndFacts; destination: EndFacts }) => readonly Judgement[],
): (source: EndFacts, destination: EndFacts) => readonly Judgement[] {
  return (source, destination) => {
    const [here, there] = [pick(source), pick(destination)];
    if (here !== undefined && there !== undefined) return judge(here, there, { source, destination });
    if (here === undefined && there === undefined) return [];
    return [warn(`cannot be compared: the ${here === undefined ? 'source' : 'destination'} does not tell`)];
  };
}

/** One judgement for each name that only one end has, or that differs; one `pass` if there is none. */
export function byName<T>(
  source: Readonly<Record<string, T>>,
  destination: Readonly<Record<string, T>>,
  judge: (name: string, source: T | undefined, destination: T | undefined) => Judgement | undefined,
  fits: string,
): readonly Judgement[] {
  const names = [...new Set([...Object.keys(source), ...Object.keys(destination)])];
  const found = names.flatMap((name) => judge(name, source[name], destination[name]) ?? []);
  return found.length > 0 ? found : [pass(fits)];
}

export function programOf({ program }: EndFacts, otherwise: string): string {
  return program?.name ?? otherwise;
}
