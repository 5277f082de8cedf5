import { FerryError } from '../base/index.ts';
import type { VmdescFault, WireFault } from '../wire/index.ts';
import type { Damage } from './report.ts';

type StreamFault = WireFault | Extract<VmdescFault, { code: 'VMDESC_MISMATCH' }>;

const STREAM_FAULTS = {
  WIRE_TRUNCATED: true,
  WIRE_UNEXPECTED_VALUE: true,
  WIRE_LIMIT: true,
  WIRE_UNSUPPORTED: true,
  VMDESC_MISMATCH: true,
} as const satisfies Record<StreamFault['code'], true>;

/** The fault of a stream as damage of the file; anything else (an i/o error, a bug) is thrown on. */
export function damageOf(thrown: unknown): Damage {
  if (!(thrown instanceof FerryError) || !(thrown.code in STREAM_FAULTS)) throw thrown;
  const fault = thrown.fault as StreamFault;
  const { offset, path, code } = fault;
  return { offset, path, ...expectation(fault), code, message: thrown.message };
}

function expectation(fault: StreamFault): { expected: string; found: string } {
  switch (fault.code) {
    case 'WIRE_TRUNCATED':
      return { expected: `${fault.wanted} bytes`, found: `${fault.available}, then the end of the file` };
    case 'WIRE_UNEXPECTED_VALUE':
      return { expected: `${fault.field}: ${fault.expected}`, found: fault.found };
    case 'WIRE_LIMIT':
      return { expected: `${fault.field}: at most ${fault.expected}`, found: String(fault.found) };
    case 'WIRE_UNSUPPORTED':
      return { expected: 'a feature that vmferry reads', found: `${fault.feature} (${fault.found})` };
    case 'VMDESC_MISMATCH':
      return { expected: fault.expected, found: fault.found };
  }
}
