/** Entry of a vCPU's thread. */
import { parentPort, workerData } from 'node:worker_threads';
import type { VcpuStart } from './messages.ts';
import { Vcpu } from './vcpu.ts';

new Vcpu(workerData as VcpuStart, (message) => parentPort?.postMessage(message)).run();
