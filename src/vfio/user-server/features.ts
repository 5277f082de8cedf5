/** DEVICE_FEATURE at the server: what the device can do, its state, and the log of what it wrote. Whatever does not fit is EINVAL. */
import { newBitmap } from '../../base/index.ts';
import { vfioUser } from '../../wire/index.ts';
import { isLogPageSize } from '../dma-log-rules.ts';
import { ERRNO } from '../errors.ts';
import { type DeviceState, migrationFlagsOf, stateNumber, stateOfNumber } from '../states.ts';
import { refuse } from '../user-link/errors.ts';
import { PageLog } from '../user-link/page-log.ts';
import type { ClientMemory } from './client-memory.ts';
import type { ServedDevice } from './served-device.ts';

const { FEATURES, FEATURE_HEAD_BYTES } = vfioUser;
type Request = vfioUser.Request<'DEVICE_FEATURE'>;

export interface FeatureContext {
  readonly served: ServedDevice;
  readonly memory: ClientMemory;
  /** Largest payload of a reply, bytes. */
  readonly replyBytesMax: number;
}

const invalid = (cause?: unknown) => refuse('the server', 'DEVICE_FEATURE', ERRNO.EINVAL, cause);

export async function serveFeature(context: FeatureContext, request: Request): Promise<Request> {
  const name = vfioUser.featureOfIndex(request.flags.index);
  if (name === undefined || !offers(context, name)) throw invalid();
  const { get, set, probe } = request.flags;
  const feature = FEATURES[name];
  if ((get && !('get' in feature)) || (set && !('set' in feature))) throw invalid();
  if (probe) return request;
  if (set) return { ...request, data: await setFeature(context, name, request.data) };
  const data = await getFeature(context, name, request);
  const argsz = FEATURE_HEAD_BYTES + data.length;
  // A part of a feature would be of no use: who has no room for it is told so.
  if (argsz > request.argsz || argsz > context.replyBytesMax) throw invalid();
  return { argsz, flags: request.flags, data };
}

function offers({ served }: FeatureContext, name: vfioUser.FeatureName): boolean {
  const { stopCopySize, precopyInfo, deadlines } = served.device.features;
  switch (name) {
    case 'MIG_DATA_SIZE':
      return stopCopySize;
    case 'PRECOPY_INFO':
      return precopyInfo;
    case 'DEADLINE':
      return deadlines;
    default:
      return true;
  }
}

async function getFeature(context: FeatureContext, name: vfioUser.FeatureName, request: Request): Promise<Buffer> {
  const { served } = context;
  switch (name) {
    case 'MIGRATION': {
      const flags = migrationFlagsOf(served.device.features.states);
      return vfioUser.encodeBody(FEATURES.MIGRATION.get.reply, { flags });
    }
    case 'MIG_DEVICE_STATE': {
      const value = { state: stateNumber(served.state), dataFd: vfioUser.NO_DATA_FD };
      return vfioUser.encodeBody(FEATURES.MIG_DEVICE_STATE.get.reply, value);
    }
    case 'MIG_DATA_SIZE': {
      const stopCopyBytes = await served.device.stopCopySize();
      return vfioUser.encodeBody(FEATURES.MIG_DATA_SIZE.get.reply, { stopCopyBytes });
    }
    case 'DMA_LOGGING_REPORT':
      return report(context, request);
    case 'PRECOPY_INFO': {
      const { initialBytes, dirtyBytes, reinit } = await served.device.precopyInfo();
      const value = { initialBytes, dirtyBytes, flags: reinit ? vfioUser.PRECOPY_INFO_REINIT : 0 };
      return vfioUser.encodeBody(FEATURES.PRECOPY_INFO.get.reply, value);
    }
    case 'ESTIMATE': {
      const { get } = FEATURES.ESTIMATE;
      const { state } = get.request.read(vfioUser.payloadOf(request.data, name), name);
      const ms = await served.device.estimate(targetOf(state));
      if (ms === undefined) throw refuse('the server', 'DEVICE_FEATURE', ERRNO.ENOENT);
      return vfioUser.encodeBody(get.reply, { state, us: Math.round(ms * 1000) });
    }
    default:
      throw invalid();
  }
}

async function setFeature(context: FeatureContext, name: vfioUser.FeatureName, data: Buffer): Promise<Buffer> {
  const payload = vfioUser.payloadOf(data, name);
  switch (name) {
    case 'MIG_DEVICE_STATE': {
      await context.served.move(targetOf(FEATURES.MIG_DEVICE_STATE.set.read(payload, name).state));
      return data;
    }
    case 'DEADLINE': {
      const { state, deadlineMs } = FEATURES.DEADLINE.set.read(payload, name);
      await context.served.move(targetOf(state), deadlineMs);
      return data;
    }
    case 'DMA_LOGGING_START': {
      const { pageSize, ranges } = FEATURES.DMA_LOGGING_START.set.read(payload, name);
      startLogging(context.memory, pageSize, ranges);
      return data;
    }
    case 'DMA_LOGGING_STOP':
      context.memory.log = undefined;
      return data;
    default:
      throw invalid();
  }
}

/** Of the number of a state that can be asked for. */
function targetOf(number: number): DeviceState {
  const target = stateOfNumber(number);
  if (target === undefined || target === 'ERROR') throw invalid();
  return target;
}

/** Any page size from 4096 on is taken as it is. Once more with the same one is no error, as with libvfio-user; what was logged stays. */
function startLogging(memory: ClientMemory, pageSize: number, ranges: readonly vfioUser.LoggedRange[]): void {
  if (!isLogPageSize(pageSize) || (memory.log !== undefined && memory.log.pageSize !== pageSize)) throw invalid();
  for (const { iova, length } of ranges) {
    if (length === 0 || iova % pageSize !== 0 || length % pageSize !== 0) throw invalid();
    if (!Number.isSafeInteger(iova + length)) throw refuse('the server', 'DEVICE_FEATURE', ERRNO.EOVERFLOW);
  }
  memory.log ??= new PageLog(pageSize, ranges);
}

/**
 * Of any range, mapped or not. libvfio-user tells only of memory that it has mapped itself, and of ranges that begin where a mapping does.
 */
function report({ memory, replyBytesMax }: FeatureContext, { data, argsz }: Request): Buffer {
  const { get } = FEATURES.DMA_LOGGING_REPORT;
  const range = get.request.read(vfioUser.payloadOf(data, 'DMA_LOGGING_REPORT'), 'DMA_LOGGING_REPORT');
  const { iova, length, pageSize } = range;
  const bitmapBytes = Math.ceil(length / pageSize / 64) * 8;
  const room = Math.min(argsz, replyBytesMax) - FEATURE_HEAD_BYTES - get.request.bytes;
  const fits = length > 0 && Number.isSafeInteger(iova + length) && bitmapBytes <= room;
  if (memory.log === undefined || !isLogPageSize(pageSize) || !fits) throw invalid();
  const words = newBitmap(bitmapBytes * 8);
  memory.log.report({ iova, length }, pageSize, words);
  const bitmap = Buffer.from(words.buffer, words.byteOffset, words.byteLength);
  return vfioUser.encodeBody(get.reply, { ...range, bitmap });
}
