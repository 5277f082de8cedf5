import { once } from 'node:events';
import { availableParallelism } from 'node:os';
import { Worker } from 'node:worker_threads';
import { type Control, loadParameters } from './control-words.ts';
import type { FromVerifier, SharedMachine, VerifierStart } from './messages.ts';
import type { Verdict } from './verify-pages.ts';

/** Checks a stopped machine in threads of its own, one a processor; the vCPUs' shares are verified independently. */
export async function verifyMachine(machine: SharedMachine, control: Control, signal?: AbortSignal): Promise<Verdict> {
  const parameters = loadParameters(control);
  const threadCount = Math.min(machine.vcpuCount, availableParallelism());
  const shares = Array.from({ length: threadCount }, (_, share) =>
    Array.from({ length: machine.vcpuCount }, (_, vcpu) => vcpu).filter((vcpu) => vcpu % threadCount === share),
  );
  const verdicts = await Promise.all(shares.map((vcpus) => verifyShare({ machine, parameters, vcpus }, signal)));
  return {
    pagesChecked: verdicts.reduce((sum, { pagesChecked }) => sum + pagesChecked, 0),
    pagesBad: verdicts.reduce((sum, { pagesBad }) => sum + pagesBad, 0),
    bad: verdicts.flatMap(({ bad }) => bad),
    registersBad: verdicts.flatMap(({ registersBad }) => registersBad),
  };
}

async function verifyShare(start: VerifierStart, signal: AbortSignal | undefined): Promise<Verdict> {
  const thread = new Worker(new URL('./verifier-thread.js', import.meta.url), {
    name: `verify${start.vcpus[0]}`,
    workerData: start,
    execArgv: [],
  });
  try {
    const [message] = (await once(thread, 'message', { signal })) as [FromVerifier];
    return message.verdict;
  } finally {
    await thread.terminate();
  }
}
