import {
  EmulatedDevice as Device,
  type EmulatedDevice,
  type SharedWindow,
  type VfOptions,
} from '../../../src/vfio/index.ts';
import { TestClock } from '../../support/device-clock.ts';

export const MIB = 1024 * 1024;
export const SMALL = { 'state-size': MIB, 'working-set': MIB, 'dma-size': MIB, 'state-rate': 40e6, 'dma-rate': 40e6 };

export function device(options: VfOptions, clock = new TestClock()): { vf: EmulatedDevice; clock: TestClock } {
  return { vf: new Device({ name: 'vf', options, dmaIova: 0x1000_0000, clock }), clock };
}

export function guestMemory(bytes: number): SharedWindow {
  return {
    iova: 0x1000_0000,
    length: bytes,
    memory: new SharedArrayBuffer(bytes),
    byteOffset: 0,
    log: new SharedArrayBuffer(bytes / 4096 / 8),
    firstBit: 0,
  };
}

export async function pass(vf: EmulatedDevice, clock: TestClock, ms: number): Promise<void> {
  for (const end = clock.now() + ms; clock.now() < end; ) {
    await clock.sleep(clock.now() + 2);
    vf.tick();
  }
}
