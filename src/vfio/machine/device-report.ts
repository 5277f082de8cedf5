/** What a device is like, and what it did in the last migration (x-query-devices). */
import type { ArcLatency, DeviceFeatures } from '../device.ts';
import type { DeviceState } from '../states.ts';
import type { DeviceRecovery } from './recovery.ts';
import type { Slot } from './slot.ts';
import type { Span, Spans } from './spans.ts';

export interface DeviceReport {
  readonly name: string;
  readonly idstr: string;
  readonly features: DeviceFeatures;
  /** Undefined: it is gone. */
  readonly state: DeviceState | undefined;
  /** Bytes that it would save if it were stopped now, if it can tell. */
  readonly stateBytes: number | undefined;
  /** Initial data when its last migration began here, bytes; undefined: it had none, or could not tell. */
  readonly initialBytes: number | undefined;
  readonly resets: number;
  /** Of the last migration. */
  readonly spans: readonly Span[];
  /** State transitions of the last migration, in their order. */
  readonly arcs: readonly ArcLatency[];
}

/** `recovery`, `spans`: of all devices. Never rejects. */
export async function reportOf(slot: Slot, recovery: DeviceRecovery, spans: Spans): Promise<DeviceReport> {
  const { device, idstr, outgoing } = slot;
  const { features, name } = device;
  const state = device.lost ? undefined : await device.state().catch(() => undefined);
  const known = state !== undefined && features.stopCopySize;
  return {
    name,
    idstr,
    features,
    state,
    initialBytes: outgoing.initialBytes,
    stateBytes: known ? await device.stopCopySize().catch(() => undefined) : undefined,
    resets: recovery.resetsOf(device),
    spans: spans.all.filter((span) => span.device === name),
    arcs: device.arcs,
  };
}
