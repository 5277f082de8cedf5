/**
 * The emulated VF: real state, changed while it runs, real DMA, and a cost model. `EmulatedVf` is the device as its owner holds it, in a
 * thread of its own; `EmulatedDevice` the device itself, for who wants it on his own thread and clock.
 */
export type { SharedWindow } from './dma.ts';
export * from './emulated-device.ts';
export * from './emulated-vf.ts';
export { FAULT_KINDS, FAULT_POINTS, type Fault, type FaultKind, type FaultPoint } from './faults.ts';
export * from './options.ts';
export { type DeviceClock, realClock } from './pace.ts';
export type { VfVerdict } from './vf-state.ts';
