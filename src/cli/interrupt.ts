import { EXIT } from './exit-status.ts';

/**
 * Ctrl-C (and SIGTERM): the first asks for an orderly end by `signal`, the second ends at once. The signal's reason is an Error that says
 * who asked. Call `release` when there is nothing left to end in order.
 */
export function catchInterrupt(): { readonly signal: AbortSignal; readonly release: () => void } {
  const controller = new AbortController();
  const onSignal = (name: NodeJS.Signals) => {
    if (controller.signal.aborted) process.exit(EXIT.interrupted);
    controller.abort(new Error(name === 'SIGINT' ? 'interrupted' : 'terminated'));
  };
  process.on('SIGINT', onSignal);
  process.on('SIGTERM', onSignal);
  return {
    signal: controller.signal,
    release: () => {
      process.off('SIGINT', onSignal);
      process.off('SIGTERM', onSignal);
    },
  };
}
