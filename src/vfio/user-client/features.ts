/** DEVICE_FEATURE, asked feature by feature. Rejects as Link.request does; a reply that does not fit ends the link. */
import { vfioUser } from '../../wire/index.ts';
import { type DeviceState, stateNumber, stateOfNumber } from '../states.ts';
import { type Link, refusedErrno } from '../user-link/link.ts';

const { FEATURES, FEATURE_HEAD_BYTES } = vfioUser;
type ValueOf<F> = F extends { read(payload: vfioUser.Payload, name: string): infer T } ? T : never;
type Readable = 'MIGRATION' | 'MIG_DEVICE_STATE' | 'MIG_DATA_SIZE';

/** `take`: as of Link.request. */
export function getFeature<N extends Readable, T>(
  link: Link,
  name: N,
  timeoutMs: number,
  take: (value: ValueOf<(typeof FEATURES)[N]['get']['reply']>) => T,
): Promise<T> {
  const { index, get } = FEATURES[name];
  const flags = { index, get: true, set: false, probe: false };
  const argsz = FEATURE_HEAD_BYTES + get.reply.bytes;
  const request = { argsz, flags, data: Buffer.alloc(0) };
  return link.request('DEVICE_FEATURE', request, timeoutMs, (reply) => {
    if (reply.flags.index !== index) throw link.badReply('DEVICE_FEATURE', `feature ${index}`, reply.flags.index);
    return take(get.reply.read(vfioUser.payloadOf(reply.data, `${name} of ${link.peer}`), name) as never);
  });
}

/** The state that the device is in. */
export function askDeviceState(link: Link, timeoutMs: number): Promise<DeviceState> {
  return getFeature(link, 'MIG_DEVICE_STATE', timeoutMs, ({ state: number }) => {
    const state = stateOfNumber(number);
    if (state === undefined) throw link.badReply('DEVICE_FEATURE', 'a device state', number);
    return state;
  });
}

/** False: the server does not have it. */
export async function probeFeature(
  link: Link,
  name: vfioUser.FeatureName,
  operation: 'get' | 'set',
  timeoutMs: number,
): Promise<boolean> {
  const { index } = FEATURES[name];
  const flags = { index, get: operation === 'get', set: operation === 'set', probe: true };
  const request = { argsz: FEATURE_HEAD_BYTES, flags, data: Buffer.alloc(0) };
  try {
    return await link.request('DEVICE_FEATURE', request, timeoutMs, () => true);
  } catch (error) {
    if (refusedErrno(error) === undefined) throw error;
    return false;
  }
}

/** Moves the device; resolves when it is there. */
export function setDeviceState(link: Link, target: DeviceState, timeoutMs: number): Promise<void> {
  const { index, set } = FEATURES.MIG_DEVICE_STATE;
  const flags = { index, get: false, set: true, probe: false };
  const state = stateNumber(target);
  const data = vfioUser.encodeBody(set, { state, dataFd: vfioUser.NO_DATA_FD });
  const request = { argsz: FEATURE_HEAD_BYTES + data.length, flags, data };
  return link.request('DEVICE_FEATURE', request, timeoutMs, (reply) => {
    const echo = set.read(vfioUser.payloadOf(reply.data, `MIG_DEVICE_STATE of ${link.peer}`), 'MIG_DEVICE_STATE');
    if (echo.state !== state) throw link.badReply('DEVICE_FEATURE', `state ${state}`, echo.state);
  });
}
