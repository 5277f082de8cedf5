import { unreachable } from '../../base/index.ts';
import type { PageCompression } from '../messages.ts';
import type { PageDecoder, PageEncoder } from './codec.ts';
import { ZlibDecoder, ZlibEncoder } from './zlib.ts';
import { ZstdDecoder, ZstdEncoder } from './zstd.ts';

export type { PageDecoder, PageEncoder } from './codec.ts';

/** Undefined for none. Throws NATIVE_UNAVAILABLE, DATAPLANE_UNAVAILABLE, CodecRefusal. */
export function openEncoder(method: PageCompression, level: number): PageEncoder | undefined {
  switch (method) {
    case 'none':
      return undefined;
    case 'zlib':
      return new ZlibEncoder(level);
    case 'zstd':
      return new ZstdEncoder(level);
    default:
      return unreachable(method);
  }
}

/** Undefined for none. Throws as openEncoder. */
export function openDecoder(method: PageCompression): PageDecoder | undefined {
  switch (method) {
    case 'none':
      return undefined;
    case 'zlib':
      return new ZlibDecoder();
    case 'zstd':
      return new ZstdDecoder();
    default:
      return unreachable(method);
  }
}
