import { compareEnds, type Finding } from '../migration/index.ts';
import type { CapabilityName } from '../settings/index.ts';
import { factsOf } from './end-facts.ts';
import { PorcelainError } from './errors.ts';
import type { Outcome } from './outcome.ts';
import { Peer } from './peer.ts';

export interface CheckOptions {
  /** QMP socket of the process that has the machine. */
  readonly source: string;
  /** QMP socket of a process in `-incoming defer`. */
  readonly destination: string;
  readonly signal?: AbortSignal | undefined;
}

export interface CheckResult {
  readonly outcome: Outcome;
  readonly findings: readonly Finding[];
}

/** Whether a machine can be moved between two processes as they are now. Nothing of them is changed. */
export async function checkEnds({ source, destination, signal }: CheckOptions): Promise<CheckResult> {
  const from = await Peer.connect(source, signal);
  try {
    const to = await Peer.connect(destination, signal);
    try {
      const { findings } = await compare(from, to);
      const error = misfit(findings);
      return { findings, outcome: { status: error ? 'failed' : 'completed', ...(error && { error }), message: '' } };
    } finally {
      to.close();
    }
  } finally {
    from.close();
  }
}

export interface Comparison {
  readonly findings: readonly Finding[];
  /** Both are vmferry and can shake hands by themselves. */
  readonly canShakeHands: boolean;
}

/** What is to be said about two processes that are to shake hands if they can (`shaking`). Throws what QMP throws when one goes away. */
export async function compare(source: Peer, destination: Peer, shaking = true): Promise<Comparison> {
  const [from, to] = await Promise.all([factsOf(source), factsOf(destination)]);
  const canShakeHands = shaking && [from, to].every(({ capabilities = {} }) => HANDSHAKE in capabilities);
  const findings = canShakeHands ? compareEnds(from, to) : compareEnds(from, to, []);
  return { findings, canShakeHands };
}

/** Known to vmferry alone. */
export const HANDSHAKE = 'x-vmferry-handshake' satisfies CapabilityName;

/** All reasons for which it cannot be, at once; undefined if there is none. */
export function misfit(findings: readonly Finding[]): PorcelainError | undefined {
  const failed = findings.filter(({ verdict }) => verdict === 'fail');
  if (failed.length === 0) return undefined;
  const reasons = failed.map(({ rule, reason }) => `${rule}: ${reason}`);
  return new PorcelainError({ code: 'ENDS_DIFFER', reasons }, `the two ends do not fit: ${reasons.join('; ')}`);
}
