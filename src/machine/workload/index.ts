/**
 * workload: the embedded machine. Entrance: `createWorkload` (workload.ts). What its guest computes is in program.ts, how vCPUs run
 * it in vcpu.ts and operations.ts, how threads talk in control-words.ts and messages.ts, what the stream carries in devices.ts.
 */
export type { DeviceMemory } from './device-memory.ts';
export type { WorkloadFault } from './errors.ts';
export type { PacedProgram } from './hardware.ts';
export { DEVICE_MEMORY_ADDRESS } from './layout.ts';
export { WORKLOAD_DEFAULTS, type WorkloadOptions } from './options.ts';
export { PATTERNS, type Pattern } from './program.ts';
export type { GuestStatistics } from './registers.ts';
export type { BadRegister, BadWord, Verdict } from './verify-pages.ts';
export { createWorkload, type WorkloadMachine } from './workload.ts';
