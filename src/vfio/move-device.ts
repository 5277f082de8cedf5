/**
 * Moves the state of one device into another, wherever the two live. What a migration does with a device, without a machine around it:
 *
 *     destination RESUMING    source PRE_COPY, read until what is left can be read within the downtime limit
 *                             source STOP_COPY, read to its end              from here on neither runs
 *     destination STOP: it has taken the whole stream       source STOP      destination RUNNING
 *
 * Reading and writing go side by side. Whatever fails before the last arc, the source runs again and the destination is reset. If the answer to the
 * last arc is lost, nobody can know whether the destination runs: then the source stays stopped.
 */
import { asError, explain, FerryError, nowMs } from '../base/index.ts';
import type { VfioDevice } from './device.ts';
import { isVfioError } from './errors.ts';
import type { DeviceState } from './states.ts';

export interface DeviceMoveOptions {
  /** Read what can be read while the source runs, if it has PRE_COPY. Default true. */
  readonly preCopy?: boolean;
  /** How long neither may run, ms, as far as that can be known from what was read last. */
  readonly downtimeLimitMs?: number;
  /** Ends the move as a failure, at the next piece of data. */
  readonly signal?: AbortSignal;
  readonly tell?: (event: DeviceMoveEvent) => void;
}

export type DeviceMoveEvent =
  /** The source had nothing more for now: `bytes` since the last time, in `ms`. */
  | { readonly kind: 'round'; readonly round: number; readonly bytes: number; readonly ms: number }
  | { readonly kind: 'stopped' };

export interface DeviceMoveResult {
  readonly totalMs: number;
  /** Neither ran. */
  readonly downtimeMs: number;
  readonly preCopyBytes: number;
  readonly stopCopyBytes: number;
  readonly rounds: number;
}

/** Where a device is after a failure, as far as it says so; `reset`: it is as new, with nothing of the other's. */
export type DeviceWhereabouts = DeviceState | 'reset' | 'unknown';

export interface DeviceMoveFault {
  readonly code: 'DEVICE_MOVE_FAILED';
  readonly source: DeviceWhereabouts;
  readonly destination: DeviceWhereabouts;
}

export const DEVICE_DOWNTIME_LIMIT_MS = 300;
/** A device that changes faster than it is read is stopped after so many rounds. */
const ROUNDS_MAX = 30;
/** Read and written at once, bytes. */
const PIECE_BYTES = 1024 * 1024;

/** Throws DEVICE_MOVE_FAILED, with what failed as its cause. Both devices stay open. */
export async function moveDevice(
  source: VfioDevice,
  destination: VfioDevice,
  options: DeviceMoveOptions = {},
): Promise<DeviceMoveResult> {
  const startMs = nowMs();
  const { tell = () => {}, downtimeLimitMs = DEVICE_DOWNTIME_LIMIT_MS } = options;
  const pump = new Pump(source, destination, options.signal);
  let starting = false;
  try {
    await destination.setState('RESUMING');
    let rounds = 0;
    if (options.preCopy !== false && source.features.states.preCopy) {
      rounds = await preCopy(source, pump, downtimeLimitMs, tell);
    }
    const preCopyBytes = pump.bytes;
    const stoppedMs = nowMs();
    await source.setState('STOP_COPY');
    tell({ kind: 'stopped' });
    await pump.run();
    await destination.setState('STOP');
    await source.setState('STOP');
    starting = true;
    await destination.setState('RUNNING');
    const endMs = nowMs();
    const stopCopyBytes = pump.bytes - preCopyBytes;
    return { totalMs: endMs - startMs, downtimeMs: endMs - stoppedMs, preCopyBytes, stopCopyBytes, rounds };
  } catch (error) {
    const undecided = starting && !(isVfioError(error) && error.fault.code === 'VFIO_ARC_FAILED');
    throw await failed(source, destination, undecided, error);
  }
}

/** Returns the number of rounds. */
async function preCopy(
  source: VfioDevice,
  pump: Pump,
  downtimeLimitMs: number,
  tell: (event: DeviceMoveEvent) => void,
): Promise<number> {
  await source.setState('PRE_COPY');
  for (let round = 1; ; round++) {
    const startMs = nowMs();
    const before = pump.bytes;
    await pump.run();
    const bytes = pump.bytes - before;
    const ms = nowMs() - startMs;
    tell({ kind: 'round', round, bytes, ms });
    const left = source.features.stopCopySize ? await source.stopCopySize() : bytes;
    if (round === ROUNDS_MAX || left * ms <= bytes * downtimeLimitMs) return round;
  }
}

/** From one device to the other, piece by piece: one is written while the next is read. */
class Pump {
  bytes = 0;
  readonly #source: VfioDevice;
  readonly #destination: VfioDevice;
  readonly #signal: AbortSignal | undefined;
  readonly #pieces = [Buffer.allocUnsafe(PIECE_BYTES), Buffer.allocUnsafe(PIECE_BYTES)] as const;

  constructor(source: VfioDevice, destination: VfioDevice, signal: AbortSignal | undefined) {
    this.#source = source;
    this.#destination = destination;
    this.#signal = signal;
  }

  /** Until the source has nothing more, for now or for good. */
  async run(): Promise<void> {
    let writing: Promise<void> = Promise.resolve();
    try {
      for (let turn = 0; ; turn++) {
        this.#signal?.throwIfAborted();
        const piece = this.#pieces[turn % 2]!;
        const count = await this.#source.read(piece);
        await writing;
        if (typeof count !== 'number') return;
        this.bytes += count;
        writing = this.#destination.write(piece.subarray(0, count));
        // Awaited in the next turn, which may fail before.
        writing.catch(() => {});
      }
    } finally {
      await writing.catch(() => {});
    }
  }
}

/** Puts things in order as far as is known. A destination that may run with the device's state leaves the source stopped. */
async function failed(
  source: VfioDevice,
  destination: VfioDevice,
  undecided: boolean,
  error: unknown,
): Promise<FerryError<DeviceMoveFault>> {
  const found = undecided ? await whereabouts(destination) : undefined;
  const mayRun = found === 'RUNNING' || found === 'unknown';
  if (!mayRun) await source.setState('RUNNING').catch(() => {});
  const fault: DeviceMoveFault = {
    code: 'DEVICE_MOVE_FAILED',
    source: await whereabouts(source),
    destination: mayRun ? found : await reset(destination),
  };
  const where = `source ${fault.source}, destination ${fault.destination}`;
  return new FerryError(fault, `the device was not moved (${where}): ${explain(asError(error))}`, error);
}

function whereabouts(device: VfioDevice): Promise<DeviceWhereabouts> {
  return device.state().catch(() => 'unknown' as const);
}

function reset(device: VfioDevice): Promise<DeviceWhereabouts> {
  return device.reset().then(
    () => 'reset',
    () => 'unknown',
  );
}
