/** Entry of a verifier's thread: checks some vCPUs' pages of a stopped machine, tells its verdict and ends. */
import { parentPort, workerData } from 'node:worker_threads';
import { controlOf, REGISTERS, Register } from './control-words.ts';
import { chunksOf, layoutOf } from './layout.ts';
import type { FromVerifier, VerifierStart } from './messages.ts';
import { programOf } from './program.ts';
import { PageVerifier } from './verify-pages.ts';

const { machine, parameters, vcpus } = workerData as VerifierStart;
const layout = layoutOf(machine.ramBytes);
const { registers } = controlOf(machine.control);
const verifier = new PageVerifier(layout, chunksOf(layout, machine.memory));
for (const vcpu of vcpus) {
  const program = programOf(parameters, layout, vcpu, machine.vcpuCount);
  const at = vcpu * REGISTERS;
  verifier.vcpu(program, registers[at + Register.OPERATIONS]!, registers[at + Register.ACCUMULATOR]!);
  if (vcpu === 0) verifier.rom(program);
}
const verified: FromVerifier = { kind: 'verified', verdict: verifier.verdict };
parentPort?.postMessage(verified);
