import type { Reader } from '../../../base/index.ts';

/** A body that says itself where it ends, element by element. */
export interface BodyScan {
  /** Reads over the next element of the body; true behind the last. Throws STARVED: then it is called again at the same place. */
  step(reader: Reader): boolean;
}
