/** QMP commands about the VFIO devices of the embedded machine. */
import {
  arrayOf,
  bool,
  type Command,
  defineCommand,
  empty,
  int,
  number,
  optional,
  required,
  str,
  struct,
} from '../../control/index.ts';
import type { DeviceReport, DevicesInMachine } from '../../vfio/index.ts';

export function deviceCommands(devices: () => DevicesInMachine): Command[] {
  return [queryDevices(devices)];
}

const SPAN = struct('XDeviceSpan', {
  kind: required(str, 'precopy, stop, save (at the source); load, config, start (at the destination).'),
  start: required(number, 'Host time at which it began, ms; the same clock in all processes of a host.'),
  end: optional(number, 'And ended; absent while it goes on.'),
  bytes: required(int, 'Bytes of the state of the device that it was about.'),
});

const DEVICE = struct('XDeviceInfo', {
  name: required(str, 'As messages call it.'),
  section: required(str, 'Name of its section in the stream.'),
  state: optional(str, 'VFIO device state; absent if the device is gone.'),
  precopy: required(bool, 'It has PRE_COPY.'),
  p2p: required(bool, 'It has the P2P states.'),
  'state-size': optional(int, 'Bytes that it would save if it were stopped now; absent if it cannot tell.'),
  resets: required(int, 'How often it had to be reset after a failure: each time its state was lost.'),
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

function rendered({ name, idstr, features, state, stateBytes, resets, spans }: DeviceReport) {
  return {
    name,
    section: idstr,
    ...(state === undefined ? {} : { state }),
    precopy: features.states.preCopy,
    p2p: features.states.p2p,
    ...(stateBytes === undefined ? {} : { 'state-size': stateBytes }),
    resets,
    spans: spans.map(({ kind, startMs, endMs, bytes }) => ({
      kind,
      start: startMs,
      ...(endMs === undefined ? {} : { end: endMs }),
      bytes,
    })),
  };
}
