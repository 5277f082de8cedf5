/** DEVICE_FEATURE, asked feature by feature. Rejects as Link.request does; a reply that does not fit ends the link. */
import { vfioUser } from '../../wire/index.ts';
import { type DeviceState, stateNumber, stateOfNumber } from '../states.ts';
import { type Link, refusedErrno } from '../user-link/link.ts';

const { FEATURES, FEATURE_HEAD_BYTES } = vfioUser;
type ValueOf<F> = F extends { read(payload: vfioUser.Payload, name: string): infer T } ? T : never;
type Readable = 'MIGRATION' | 'MIG_DEVICE_STATE' | 'MIG_DATA_SIZE' | 'PRECOPY_INFO' | 'ESTIMATE';

/** `take`: as of Link.request. `data`: of the request, if it has any. */
export function getFeature<N extends Readable, T>(
  link: Link,
  name: N,
  timeoutMs: number,
  take: (value: ValueOf<(typeof FEATURES)[N]['get']['reply']>) => T,
  data: Buffer = Buffer.alloc(0),
): Promise<T> {
  const { index, get } = FEATURES[name];
  const flags = { index, get: true, set: false, probe: false };
  const argsz = FEATURE_HEAD_BYTES + get.reply.bytes;
  const request = { argsz, flags, data };
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

/** Moves the device; resolves when it is there. With a deadline: there by then or back where it was, if the server has that. */
export function setDeviceState(link: Link, target: DeviceState, timeoutMs: number, deadlineMs?: number): Promise<void> {
  const state = stateNumber(target);
  const { index, data } =
    deadlineMs === undefined
      ? encodeSet('MIG_DEVICE_STATE', { state, dataFd: vfioUser.NO_DATA_FD })
      : encodeSet('DEADLINE', { state, deadlineMs });
  const flags = { index, get: false, set: true, probe: false };
  const request = { argsz: FEATURE_HEAD_BYTES + data.length, flags, data };
  return link.request('DEVICE_FEATURE', request, timeoutMs, (reply) => {
    if (!reply.data.equals(data)) {
      throw link.badReply('DEVICE_FEATURE', data.toString('hex'), reply.data.subarray(0, 8).toString('hex'));
    }
  });
}

function encodeSet<N extends 'MIG_DEVICE_STATE' | 'DEADLINE'>(name: N, value: ValueOf<(typeof FEATURES)[N]['set']>) {
  const { index, set } = FEATURES[name];
  return { index, data: vfioUser.encodeBody(set as never, value) };
}

/** ms that moving there takes; undefined: the device does not know. */
export async function estimateMove(link: Link, target: DeviceState, timeoutMs: number): Promise<number | undefined> {
  const data = vfioUser.encodeBody(FEATURES.ESTIMATE.get.request, { state: stateNumber(target) });
  try {
    return await getFeature(link, 'ESTIMATE', timeoutMs, ({ us }) => us / 1000, data);
  } catch (error) {
    if (refusedErrno(error) === undefined) throw error;
    return undefined;
  }
}
