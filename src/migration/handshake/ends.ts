/** The handshake as a conductor begins it: the facts of its machine and its settings, and what cannot be in its migration. */
import { asError } from '../../base/index.ts';
import type { DestinationMachine, LoadOrder, SourceMachine } from '../../machine/index.ts';
import type { SettingsView } from '../../settings/index.ts';
import type { Channel } from '../../transport/index.ts';
import type { Agreement } from './agreement.ts';
import { destinationFacts, impossible, sourceFacts } from './own-facts.ts';
import { answerHandshake, offerHandshake } from './shake-hands.ts';

export interface HandshakeTerms<Machine> {
  readonly machine: Machine;
  readonly settings: SettingsView;
  /** There can be connections beside main. */
  readonly moreConnections: boolean;
}

/** Throws what `offerHandshake` throws, and what `signal` aborts with; `main` is destroyed then. */
export async function shakeHandsAsSource(
  main: Channel,
  { machine, settings, moreConnections }: HandshakeTerms<SourceMachine>,
  signal: AbortSignal,
): Promise<Agreement> {
  const end = () => main.destroy(asError(signal.reason));
  if (signal.aborted) end();
  signal.addEventListener('abort', end, { once: true });
  try {
    const { multifdWithPostcopy } = settings.dialect(machine.machineType);
    const cannot = impossible({
      moreConnections,
      multifd: multifdWithPostcopy || !settings.capability('postcopy-ram'),
      postcopy: machine.iterables.length === 0 && (multifdWithPostcopy || !settings.capability('multifd')),
    });
    return await offerHandshake(main, await sourceFacts(machine, settings, cannot), settings);
  } catch (error) {
    main.destroy(asError(error));
    throw error;
  } finally {
    signal.removeEventListener('abort', end);
  }
}

/** `order`: in which devices will be loaded. Throws what `answerHandshake` throws; `main` is whoever's it is who has accepted it. */
export async function shakeHandsAsDestination(
  main: Channel,
  { machine, settings, moreConnections }: HandshakeTerms<DestinationMachine>,
  order: LoadOrder,
): Promise<Agreement> {
  const cannot = impossible({ moreConnections, multifd: true, postcopy: machine.missingRam !== undefined });
  return await answerHandshake(main, await destinationFacts(machine, settings, cannot, order), settings);
}
