import { asError, FerryError } from '../base/index.ts';
import type { Outcome } from '../porcelain/index.ts';
import { EXIT } from './exit-status.ts';
import { catchInterrupt } from './interrupt.ts';
import { outcomeFacts, outcomeText } from './render/outcome.ts';
import { HumanReporter, JsonReporter, type Reporter } from './reporter.ts';

export interface Session {
  /** Aborts at the first Ctrl-C: end in order. */
  readonly signal: AbortSignal;
  readonly reporter: Reporter;
}

/** What a command hands back: its outcome, and what it has to say beyond that. */
export interface Report {
  readonly outcome: Outcome;
  /** Further members of the result line. */
  readonly facts?: object;
  /** For people, instead of the usual summary. */
  readonly text?: string;
}

/** Faults of what was typed, whoever finds them. */
const USAGE = /^(SETTINGS_(UNKNOWN|BAD_VALUE|BAD_ASSIGNMENT|CONFLICT|UNSUPPORTED)|WORKLOAD_OPTION|TRANSPORT_ADDRESS)$/;

/** Runs a command's work between its options and its exit status: signals, reporter, result line. Never throws. */
export async function perform(options: { json?: boolean }, work: (session: Session) => Promise<Report>): Promise<void> {
  const reporter = options.json === true ? new JsonReporter() : new HumanReporter();
  const { signal, release } = catchInterrupt();
  signal.addEventListener('abort', () => {
    reporter.event('interrupted', {}, `${asError(signal.reason).message}: ending in order; once more ends at once`);
  });
  let report: Report;
  try {
    report = await work({ signal, reporter });
  } catch (thrown) {
    const error = asError(thrown);
    report = { outcome: { status: signal.aborted ? 'cancelled' : 'failed', error, message: '' } };
  }
  release();
  const { outcome } = report;
  reporter.result({ ...outcomeFacts(outcome), ...report.facts }, report.text ?? outcomeText(outcome));
  process.exitCode = exitStatus(outcome, signal.aborted);
}

function exitStatus({ status, error }: Outcome, interrupted: boolean): number {
  if (status === 'completed') return EXIT.done;
  if (interrupted) return EXIT.interrupted;
  return error instanceof FerryError && USAGE.test(error.code) ? EXIT.usage : EXIT.failed;
}
