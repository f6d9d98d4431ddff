// Runs layers, nets and the solver of weiliu89/caffe (branch ssd) for referee.py, on blobs in files.
//
//   referee net    NET DIR COUNT TRAIN|TEST WEIGHTS|- BLOB,BLOB...  forward, COUNT times
//   referee loss   NET DIR COUNT                                    the same, and the gradients
//   referee init   NET SEED OUT.caffemodel                          the initial weights of a net
//   referee solve  SOLVER DIR STEPS WEIGHTS                         iter_size forward passes a step
//   referee train  SOLVER STEPS WEIGHTS OUT                         steps of a net with a data layer
//   referee stats  NET OUT COUNT SEED                               samples of a data net
//   referee ap     FILE                                             average precision of a file
//
// Blob B of pass k is read from DIR/B_k.bin or, if that is missing, from DIR/B.bin: int32 rank,
// int32 dimensions, float32 values. Blob B of pass k is written to DIR/out_B_k.bin in the same
// form.
// Build: compile with the flags of the branch's own tools and link with all of libcaffe.a.
#include <cstdio>
#include <fstream>
#include <string>
#include <vector>
#include "caffe/caffe.hpp"
#include "caffe/sgd_solvers.hpp"
#include "caffe/util/bbox_util.hpp"
#include "caffe/util/upgrade_proto.hpp"
using namespace caffe;
using std::string;
using std::vector;

static void write(const string& path, const vector<int>& shape, const float* values, int count) {
  std::ofstream f(path, std::ios::binary);
  int rank = shape.size();
  f.write((const char*)&rank, 4);
  f.write((const char*)shape.data(), 4L * rank);
  f.write((const char*)values, 4L * count);
}

static void feed(Net<float>& net, const string& dir, int k) {
  for (size_t i = 0; i < net.input_blobs().size(); ++i) {
    string name = dir + "/" + net.blob_names()[net.input_blob_indices()[i]];
    std::ifstream f(name + "_" + std::to_string(k) + ".bin", std::ios::binary);
    if (!f) f.open(name + ".bin", std::ios::binary);
    CHECK(f) << name;
    int rank;
    f.read((char*)&rank, 4);
    vector<int> shape(rank);
    f.read((char*)shape.data(), 4L * rank);
    Blob<float>* blob = net.input_blobs()[i];
    blob->Reshape(shape);
    f.read((char*)blob->mutable_cpu_data(), 4L * blob->count());
    CHECK(f) << name << " is too short";
  }
  net.Reshape();
}

static void save(Net<float>& net, const string& dir, int k, const string& name) {
  const Blob<float>& b = *net.blob_by_name(name);
  write(dir + "/out_" + name + "_" + std::to_string(k) + ".bin", b.shape(), b.cpu_data(), b.count());
}

// Like Solver::Step, but each of the iter_size passes has its own input.
class FedSolver : public SGDSolver<float> {
 public:
  explicit FedSolver(const SolverParameter& p) : SGDSolver<float>(p) {}
  float Step(const string& dir, int* k) {
    float loss = 0;
    net_->ClearParamDiffs();
    for (int i = 0; i < param_.iter_size(); ++i) {
      feed(*net_, dir, (*k)++);
      loss += net_->ForwardBackward();
    }
    ApplyUpdate();
    ++iter_;
    return loss / param_.iter_size();
  }
};

static void stats(const char* path, const char* out, int count) {
  // One line per sample: means and deviations of blue, green and red, share of fill, and 8 numbers
  // for each object.
  Net<float> net(path, TRAIN);
  FILE* f = fopen(out, "w");
  for (int k = 0; k < count; ++k) {
    net.Forward();
    const Blob<float>&d = *net.blob_by_name("data"), &l = *net.blob_by_name("label");
    int n = d.height() * d.width(), fill = 0;
    double sum[3] = {0}, squares[3] = {0};
    for (int i = 0; i < n; ++i) {
      bool is_fill = true;
      for (int c = 0; c < 3; ++c) {
        float v = d.cpu_data()[c * n + i];
        sum[c] += v;
        squares[c] += v * v;
        is_fill &= std::abs(v) <= 2;
      }
      fill += is_fill;
    }
    for (int c = 0; c < 3; ++c) fprintf(f, "%g ", sum[c] / n);
    for (int c = 0; c < 3; ++c)
      fprintf(f, "%g ", sqrt(std::max(0., squares[c] / n - sum[c] / n * sum[c] / n)));
    fprintf(f, "%g", double(fill) / n);
    for (int i = 0; i < l.count(); ++i) fprintf(f, " %g", l.cpu_data()[i]);
    fprintf(f, "\n");
  }
  fclose(f);
}

static void average_precision(const char* path) {
  // Lines: positives, count, then count times score, true positive, false positive.
  std::ifstream f(path);
  int positives, count;
  while (f >> positives >> count) {
    vector<std::pair<float, int> > tp(count), fp(count);
    for (int i = 0; i < count; ++i) {
      f >> tp[i].first >> tp[i].second >> fp[i].second;
      fp[i].first = tp[i].first;
    }
    for (string version : {"11point", "MaxIntegral", "Integral"}) {
      vector<float> precision, recall;
      float ap = 0;
      ComputeAP(tp, positives, fp, version, &precision, &recall, &ap);
      printf("%.9g ", ap);
    }
    printf("\n");
  }
}

int main(int, char** a) {
  FLAGS_minloglevel = 1;
  google::InitGoogleLogging(a[0]);
  Caffe::set_mode(Caffe::CPU);
  Caffe::set_random_seed(1);
  string mode = a[1];
  if (mode == "init") {
    Caffe::set_random_seed(atoi(a[3]));
    Net<float> net(a[2], TEST);
    NetParameter p;
    net.ToProto(&p);
    WriteProtoToBinaryFile(p, a[4]);
  } else if (mode == "stats") {
    Caffe::set_random_seed(atoi(a[5]));
    stats(a[2], a[3], atoi(a[4]));
  } else if (mode == "ap") {
    average_precision(a[2]);
  } else if (mode == "solve") {
    SolverParameter p;
    ReadSolverParamsFromTextFileOrDie(a[2], &p);
    FedSolver solver(p);
    solver.net()->CopyTrainedLayersFrom(string(a[5]));
    string dir = a[3];
    int k = 0;
    for (int i = 0; i < atoi(a[4]); ++i) {
      printf("%.9g\n", solver.Step(dir, &k));
      fflush(stdout);
    }
    NetParameter end;
    solver.net()->ToProto(&end);
    WriteProtoToBinaryFile(end, dir + "/end.caffemodel");
  } else if (mode == "train") {
    SolverParameter p;
    ReadSolverParamsFromTextFileOrDie(a[2], &p);
    SGDSolver<float> solver(p);
    solver.net()->CopyTrainedLayersFrom(string(a[4]));
    for (int i = 0; i < atoi(a[3]); ++i) {
      solver.Step(1);
      printf("%.9g\n", solver.net()->blob_by_name("mbox_loss")->cpu_data()[0]);
      fflush(stdout);
    }
    NetParameter end;
    solver.net()->ToProto(&end);
    WriteProtoToBinaryFile(end, a[5]);
  } else if (mode == "net" || mode == "loss") {
    bool loss = mode == "loss";
    string dir = a[3];
    Net<float> net(a[2], loss || string(a[5]) == "TRAIN" ? TRAIN : TEST);
    if (!loss && string(a[6]) != "-") net.CopyTrainedLayersFrom(string(a[6]));
    for (int k = 0; k < atoi(a[4]); ++k) {
      feed(net, dir, k);
      net.Forward();
      if (!loss) {
        std::istringstream names(a[7]);
        for (string name; std::getline(names, name, ',');) save(net, dir, k, name);
        continue;
      }
      int last = net.layers().size() - 1;
      caffe_set(1, 1.f, net.top_vecs()[last][0]->mutable_cpu_diff());
      net.layers()[last]->Backward(
          net.top_vecs()[last], {true, true, false, false}, net.bottom_vecs()[last]);
      save(net, dir, k, "mbox_loss");
      for (int i = 0; i < 2; ++i) {
        const Blob<float>& b = *net.bottom_vecs()[last][i];
        string name = dir + "/out_gradient" + std::to_string(i) + "_" + std::to_string(k) + ".bin";
        write(name, b.shape(), b.cpu_diff(), b.count());
      }
    }
  } else {
    LOG(FATAL) << "unknown mode " << mode;
  }
  return 0;
}
