/** Entry of a vCPU's thread. */
import { parentPort, workerData } from 'node:worker_threads';
import type { FromVcpu, VcpuStart } from './messages.ts';
import { Vcpu } from './vcpu.ts';

const acknowledged: FromVcpu = { kind: 'acknowledged' };
new Vcpu(workerData as VcpuStart, () => parentPort?.postMessage(acknowledged)).run();
