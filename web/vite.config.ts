import { defaultClientConditions, defineConfig } from "vite";

export default defineConfig({
  base: "./",
  // Keep ONNX Runtime's wasm files separate: the server's Content Security Policy forbids embedded ones.
  resolve: { conditions: ["onnxruntime-web-use-extern-wasm", ...defaultClientConditions] },
  worker: { format: "es" },
  build: { target: "es2022", assetsInlineLimit: 0, chunkSizeWarningLimit: 1000 },
});
