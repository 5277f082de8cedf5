/** The vCPUs' registers in shared memory, as device state and as statistics. Exact only while the vCPUs are parked. */
import { type Control, REGISTERS, Register } from './control-words.ts';
import type { CpuState } from './devices.ts';

export interface GuestStatistics {
  /** Operations done by all vCPUs; each has written one page. */
  readonly operations: number;
  /** The same of each vCPU. */
  readonly vcpuOperations: readonly number[];
  /** How long the guest did not run over its last stop, as it saw it itself: of the vCPU that waited longest, ms. 0 = unknown. */
  readonly lastStopMs: number;
  /** The longest time any vCPU ever could not run though it wanted to, ms. */
  readonly longestGapMs: number;
  /** Gaps of more than 10 ms, of all vCPUs. */
  readonly gaps: number;
}

function registersOf(control: Control, vcpu: number): Float64Array {
  return control.registers.subarray(vcpu * REGISTERS, (vcpu + 1) * REGISTERS);
}

export function saveCpu(control: Control, vcpu: number): CpuState {
  const registers = registersOf(control, vcpu);
  const integer = (register: number) => BigInt(Math.round(registers[register]!));
  return {
    operations: integer(Register.OPERATIONS),
    accumulator: registers[Register.ACCUMULATOR]! >>> 0,
    gaps: {
      quiet_since: integer(Register.QUIET_SINCE),
      longest: integer(Register.LONGEST_GAP),
      last_stop: integer(Register.LAST_STOP_GAP),
      count: integer(Register.GAPS),
    },
  };
}

/** `sameClock`: the source's times are of this host's clock, so the gap over the migration can be told. */
export function loadCpu(control: Control, vcpu: number, state: CpuState, sameClock: boolean): void {
  const registers = registersOf(control, vcpu);
  registers[Register.OPERATIONS] = Number(state.operations);
  registers[Register.ACCUMULATOR] = state.accumulator | 0;
  registers[Register.QUIET_SINCE] = sameClock ? Number(state.gaps.quiet_since) : 0;
  registers[Register.LONGEST_GAP] = Number(state.gaps.longest);
  // That of the stop before this one: from here on unknown, until the vCPU runs.
  registers[Register.LAST_STOP_GAP] = 0;
  registers[Register.GAPS] = Number(state.gaps.count);
}

export function guestStatistics(control: Control, vcpuCount: number): GuestStatistics {
  const vcpuOperations: number[] = [];
  let [lastStop, longestGap, gaps] = [0, 0, 0];
  for (let vcpu = 0; vcpu < vcpuCount; vcpu++) {
    const registers = registersOf(control, vcpu);
    vcpuOperations.push(registers[Register.OPERATIONS]!);
    lastStop = Math.max(lastStop, registers[Register.LAST_STOP_GAP]!);
    longestGap = Math.max(longestGap, registers[Register.LONGEST_GAP]!);
    gaps += registers[Register.GAPS]!;
  }
  const operations = vcpuOperations.reduce((sum, count) => sum + count, 0);
  return { operations, vcpuOperations, lastStopMs: lastStop / 1e6, longestGapMs: longestGap / 1e6, gaps };
}
