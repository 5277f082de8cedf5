/** QMP commands about the VFIO devices of the embedded machine. */
import {
  arrayOf,
  bool,
  type Command,
  type Described,
  defineCommand,
  empty,
  enumOf,
  int,
  number,
  optional,
  required,
  str,
  struct,
} from '../../control/index.ts';
import {
  type DeviceRecord,
  type DeviceReport,
  type DevicesInMachine,
  SPAN_KINDS,
  SPANS,
  type SpanDeclaration,
} from '../../vfio/index.ts';

export function deviceCommands(devices: () => DevicesInMachine): Command[] {
  return [queryDevices(devices)];
}

const SPAN = struct('XDeviceSpan', {
  kind: required(enumOf('XDeviceSpanKind', SPAN_KINDS), spanKindsDoc()),
  start: required(number, 'Host time at which it began, ms; the same clock in all processes of a host.'),
  end: optional(number, 'And ended; absent while it goes on.'),
  bytes: required(int, 'Bytes of the state of the device that it was about.'),
});

const ARC = struct('XDeviceArc', {
  from: required(str, 'VFIO device state.'),
  to: required(str, 'VFIO device state.'),
  ms: required(
    number,
    'How long it took, as the device says. A device that cannot tell its arcs apart reports the whole way as one.',
  ),
});

const DEVICE = struct('XDeviceInfo', {
  name: required(str, 'As messages call it.'),
  section: required(str, 'Name of its section in the stream.'),
  state: optional(str, 'VFIO device state; absent if the device is gone.'),
  precopy: required(bool, 'It has PRE_COPY.'),
  p2p: required(bool, 'It has the P2P states.'),
  'initial-data': required(bool, 'A part of its state prepares the device at the destination (switchover-ack).'),
  deadlines: required(bool, 'It can be asked to stop within a given time.'),
  'state-size': optional(int, 'Bytes that it would save if it were stopped now; absent if it cannot tell.'),
  'initial-size': optional(
    int,
    'Bytes of initial data when its last migration began here; absent if it has none, or cannot tell.',
  ),
  resets: required(int, 'How often it had to be reset after a failure: each time its state was lost.'),
  arcs: required(
    arrayOf(ARC),
    'Its state transitions in the last migration, in their order; the last ones, if there were many.',
  ),
  spans: required(arrayOf(SPAN), 'What it did in the last migration, and when.'),
});

function queryDevices(devices: () => DevicesInMachine): Command {
  return defineCommand({
    name: 'x-query-devices',
    doc: 'The VFIO devices of the machine, and their time line in the last migration.',
    arguments: empty,
    returns: arrayOf(DEVICE),
    run: async () => (await devices().machine.reports()).map(rendered),
  });
}

/** Reply of x-query-devices. */
export type DeviceInfos = readonly Described<typeof DEVICE>[];

/** The reply of one side, as a time line is made of. What is not over is left out. */
export function deviceRecordsOf(devices: DeviceInfos): readonly DeviceRecord[] {
  return devices.map((device) => ({
    name: device.name,
    section: device.section,
    stateBytes: device['state-size'],
    initialBytes: device['initial-size'],
    spans: device.spans.flatMap(({ kind, start, end, bytes }) =>
      end === undefined ? [] : [{ kind, startMs: start, endMs: end, bytes }],
    ),
  }));
}

function rendered({ name, idstr, features, state, stateBytes, initialBytes, resets, spans, arcs }: DeviceReport) {
  return {
    name,
    section: idstr,
    ...(state === undefined ? {} : { state }),
    precopy: features.states.preCopy,
    p2p: features.states.p2p,
    'initial-data': features.states.preCopy && features.precopyInfo,
    deadlines: features.deadlines,
    ...(stateBytes === undefined ? {} : { 'state-size': stateBytes }),
    ...(initialBytes === undefined ? {} : { 'initial-size': initialBytes }),
    resets,
    arcs: arcs.map(({ from, to, ms }) => ({ from, to, ms })),
    spans: spans.map(({ kind, startMs, endMs, bytes }) => ({
      kind,
      start: startMs,
      ...(endMs === undefined ? {} : { end: endMs }),
      bytes,
    })),
  };
}

function spanKindsDoc(): string {
  const kinds: [string, SpanDeclaration][] = Object.entries(SPANS);
  return kinds
    .map(([kind, { side, doc }]) => `${kind} (${side}): ${doc}`)
    .join('. ')
    .concat('.');
}
