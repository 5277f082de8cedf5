/**
 * Every wait of a migration for something outside this process, declared once: what for (query-migrate shows it as x-waiting-for while it lasts), how
 * long at most, and what happens then. The engine takes texts and deadlines from here; docs/reference/settings.md lists them.
 */
import type { ParameterName, ParameterValues } from './parameters.ts';

/** Parameters that are a number of milliseconds. */
type Deadline = { [N in ParameterName]: ParameterValues[N] extends number ? N : never }[ParameterName];

export interface Wait {
  readonly end: 'source' | 'destination' | 'both';
  /** MigrationStatus in which it occurs. */
  readonly phase: string;
  /** As the end of "waiting for ...". */
  readonly what: string;
  /** Parameter with the longest time; without one it is ended by a person, or with the connection. */
  readonly deadline?: Deadline;
  /** Once it has passed: what may be the reason, for the message. */
  readonly hint?: string;
  /** What happens when the time is over, or who ends it. */
  readonly after: string;
}

const GOES_ON = 'the migration fails, the guest goes on at the source';
const DEVICE_GONE = 'the device is given up, and the migration fails if it has a part in it';

export const WAITS = {
  connection: {
    end: 'source',
    phase: 'setup, active, postcopy-recover-setup, postcopy-recover',
    what: 'the destination to take the connection',
    deadline: 'x-connect-timeout',
    after: `${GOES_ON}; a paused postcopy stays paused`,
  },
  handshake: {
    end: 'source',
    phase: 'setup',
    what: 'the other end of the handshake',
    deadline: 'x-handshake-timeout',
    hint: 'is it vmferry, and x-vmferry-handshake on there?',
    after: GOES_ON,
  },
  hello: {
    end: 'destination',
    phase: 'setup',
    what: 'the handshake of the source',
    deadline: 'x-handshake-timeout',
    hint: 'is x-vmferry-handshake on there?',
    after: 'the migration fails',
  },
  answer: {
    end: 'source',
    phase: 'setup',
    what: 'the destination to read the stream',
    deadline: 'x-setup-timeout',
    hint: 'does it wait for other channels? multifd, multifd-channels and postcopy-preempt must be the same there',
    after: GOES_ON,
  },
  room: {
    end: 'source',
    phase: 'setup to completed',
    what: 'the destination to take what is sent',
    deadline: 'x-stall-timeout',
    hint: 'it is connected, but reads nothing',
    after: `${GOES_ON}; past the commit point the guest stays stopped, in a postcopy it pauses`,
  },
  ready: {
    end: 'source',
    phase: 'active',
    what: "the destination's devices to be ready (switchover-ack)",
    deadline: 'x-switchover-ack-timeout',
    after: 'as the parameter says',
  },
  person: {
    end: 'source',
    phase: 'pre-switchover',
    what: 'migrate-continue',
    after: 'ended by migrate-continue or migrate_cancel',
  },
  loaded: {
    end: 'source',
    phase: 'device, postcopy-device',
    what: 'the destination to load the devices',
    deadline: 'x-load-timeout',
    after: `${GOES_ON}; a postcopy pauses`,
  },
  confirmation: {
    end: 'source',
    phase: 'device, postcopy-active',
    what: 'the destination to confirm the guest',
    deadline: 'x-confirm-timeout',
    after: 'the migration fails; the guest stays stopped here, as it may run there; a postcopy pauses',
  },
  'last bytes': {
    end: 'source',
    phase: 'device',
    what: 'the channels to take the last bytes',
    deadline: 'x-confirm-timeout',
    after: 'with the confirmation in hand nothing; without a return path the migration fails',
  },
  closing: {
    end: 'source',
    phase: 'postcopy-active',
    what: 'the channels to end',
    deadline: 'x-closing-timeout',
    after: 'nothing: the destination has everything',
  },
  recovery: {
    end: 'source',
    phase: 'postcopy-paused',
    what: 'migrate with resume',
    after: 'ended by a person: the guest runs at the destination',
  },
  bitmaps: {
    end: 'source',
    phase: 'postcopy-recover',
    what: 'the destination to tell what it has',
    deadline: 'x-recover-timeout',
    after: 'the postcopy stays paused',
  },
  resume: {
    end: 'source',
    phase: 'postcopy-recover',
    what: 'the destination to go on',
    deadline: 'x-recover-timeout',
    after: 'the postcopy stays paused',
  },
  source: {
    end: 'destination',
    phase: 'setup, postcopy-paused',
    what: 'the source to connect',
    after: 'ended by a source that comes, or by quit',
  },
  introduction: {
    end: 'destination',
    phase: 'setup, postcopy-paused',
    what: 'a connection to shake hands (TLS) and say what it is',
    deadline: 'x-arrival-timeout',
    after: 'the connection is turned away, and another one awaited',
  },
  channels: {
    end: 'destination',
    phase: 'setup',
    what: 'the other channels of the source',
    deadline: 'x-arrival-timeout',
    after: 'the migration fails',
  },
  preempt: {
    end: 'destination',
    phase: 'postcopy-device, postcopy-recover',
    what: 'the preempt channel',
    deadline: 'x-arrival-timeout',
    hint: 'is postcopy-preempt on at the source?',
    after: 'the migration fails; a postcopy pauses',
  },
  stream: {
    end: 'destination',
    phase: 'active to postcopy-active',
    what: 'more of the stream',
    deadline: 'x-silence-timeout',
    after: 'the migration fails, and the source hears of it; a postcopy pauses',
  },
  laggards: {
    end: 'destination',
    phase: 'active, postcopy-active',
    what: 'the other channels to bring what the main channel is ahead of',
    deadline: 'x-lag-timeout',
    after: 'the migration fails, and the source hears of it; a postcopy pauses',
  },
  offer: {
    end: 'destination',
    phase: 'postcopy-paused',
    what: 'migrate-recover',
    after: 'ended by a person: the guest runs here',
  },
  'going on': {
    end: 'destination',
    phase: 'postcopy-recover',
    what: 'the source to go on',
    deadline: 'x-recover-timeout',
    after: 'the postcopy stays paused',
  },
  description: {
    end: 'destination',
    phase: 'active',
    what: 'the description behind the end of the stream',
    deadline: 'x-description-timeout',
    after: 'there is none (suppress-vmdesc), the guest is started',
  },
  'device state': {
    end: 'both',
    phase: 'any',
    what: 'a device to change its state',
    deadline: 'x-device-state-timeout',
    after: DEVICE_GONE,
  },
  'device data': {
    end: 'both',
    phase: 'any',
    what: 'a device to give or take data',
    deadline: 'x-device-data-timeout',
    after: DEVICE_GONE,
  },
  'device answer': {
    end: 'both',
    phase: 'any',
    what: 'a device to answer',
    deadline: 'x-device-answer-timeout',
    after: DEVICE_GONE,
  },
  farewell: {
    end: 'destination',
    phase: 'active, postcopy-active',
    what: 'the source to take the last word and close',
    deadline: 'x-closing-timeout',
    after: 'the connection is closed from here',
  },
} as const satisfies Readonly<Record<string, Wait>>;

export type WaitName = keyof typeof WAITS;

/** Those with a deadline. */
export type TimedWait = { [N in WaitName]: (typeof WAITS)[N] extends { deadline: Deadline } ? N : never }[WaitName];

export function waitDeclaration(name: WaitName): Wait {
  return WAITS[name];
}
