// The straightforward C++ loop for rotated boxes: for each pair, clip one polygon by the other.
// benchmarks/kernels.py compares the ops with it; hydet does not use it.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <vector>

namespace {

struct Point { double x, y; };

void corners(const float* box, double origin_x, double origin_y, Point out[4]) {
    const double radians = box[4] * 0.017453292519943295;
    const double c = std::cos(radians), s = std::sin(radians);
    const double w = box[2] * 0.5, h = box[3] * 0.5, x = box[0] - origin_x, y = box[1] - origin_y;
    const double u[4] = {-1, 1, 1, -1}, v[4] = {-1, -1, 1, 1};
    for (int k = 0; k < 4; ++k)
        out[k] = {x + u[k] * w * c + v[k] * h * s, y - u[k] * w * s + v[k] * h * c};
}

float iou(const float* a, const float* b, bool skip_far) {
    if (skip_far) {
        const double dx = double(a[0]) - b[0], dy = double(a[1]) - b[1];
        const double reach = 0.5 * (std::hypot(a[2], a[3]) + std::hypot(b[2], b[3]));
        if (dx * dx + dy * dy > reach * reach) return 0;
    }
    Point polygon[16], clip[4], next[16];
    int count = 4;
    corners(a, b[0], b[1], polygon);
    corners(b, b[0], b[1], clip);
    for (int k = 0; k < 4 && count > 0; ++k) {
        const Point p = clip[k], q = clip[(k + 1) % 4];
        const double ex = q.x - p.x, ey = q.y - p.y;
        int next_count = 0;
        for (int i = 0; i < count; ++i) {
            const Point s = polygon[i], t = polygon[(i + 1) % count];
            const double d = ex * (s.y - p.y) - ey * (s.x - p.x), e = ex * (t.y - p.y) - ey * (t.x - p.x);
            if (d >= 0) next[next_count++] = s;
            if ((d >= 0) != (e >= 0)) {
                const double f = d / (d - e);
                next[next_count++] = {s.x + f * (t.x - s.x), s.y + f * (t.y - s.y)};
            }
        }
        std::copy(next, next + next_count, polygon);
        count = next_count;
    }
    double twice = 0;
    for (int i = 0; i < count; ++i) {
        const Point s = polygon[i], t = polygon[(i + 1) % count];
        twice += s.x * t.y - t.x * s.y;
    }
    const double shared = 0.5 * std::fabs(twice);
    return float(shared / (double(a[2]) * a[3] + double(b[2]) * b[3] - shared));
}

}  // namespace

extern "C" void iou_matrix(const float* a, int64_t n, const float* b, int64_t m, float* out, bool skip_far) {
    for (int64_t i = 0; i < n; ++i)
        for (int64_t j = 0; j < m; ++j) out[i * m + j] = iou(a + 5 * i, b + 5 * j, skip_far);
}

extern "C" int64_t nms(const float* boxes, const float* scores, int64_t n, float threshold, int64_t* indices, bool skip_far) {
    std::vector<int64_t> order(n);
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](int64_t i, int64_t j) { return scores[i] > scores[j]; });
    std::vector<char> dropped(n, 0);
    int64_t count = 0;
    for (int64_t i = 0; i < n; ++i) {
        if (dropped[i]) continue;
        indices[count++] = order[i];
        for (int64_t j = i + 1; j < n; ++j)
            if (!dropped[j] && iou(boxes + 5 * order[i], boxes + 5 * order[j], skip_far) > threshold) dropped[j] = 1;
    }
    return count;
}
